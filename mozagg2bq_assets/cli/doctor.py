"""`mozagg2bq doctor`: the command that tries every credential."""

import sys
from itertools import chain

import click

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.cli.options import debug_option, json_option, paint, print_json
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.pipeline.doctor import examine_lake, examine_source, examine_warehouse
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_services


@click.command()
@json_option
@debug_option
def doctor(as_json: bool) -> None:
    """Try what the credentials must be able to do.

    It does what the pipeline will do, with one day of the source, and an object and a table of its own, which it
    removes. Prints a line for each step, with what to grant where one fails. Exits with status 1 if any fails.
    """
    postgres, stored, bigquery = read_services()
    findings = []
    for finding in chain(
        examine_source(open_source(postgres)), examine_lake(Lake(stored)), examine_warehouse(open_warehouse(bigquery))
    ):
        findings.append({"tried": finding.tried, "problem": finding.problem})
        if not as_json:
            bad, good = paint("FAILS", "red"), paint("ok", "green")
            click.echo(
                f"{bad}  {finding.tried}: {finding.problem}" if finding.problem else f"{good}     {finding.tried}"
            )
    if as_json:
        print_json(findings)
    if any(finding["problem"] for finding in findings):
        sys.exit(1)
