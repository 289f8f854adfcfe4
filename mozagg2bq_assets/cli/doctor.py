"""`mozagg2bq doctor`: the command that tries every credential."""

import sys
from itertools import chain

import click

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.cli.options import debug_option
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.pipeline.doctor import examine_lake, examine_source, examine_warehouse
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_services


@click.command()
@debug_option
def doctor() -> None:
    """Try what the credentials must be able to do.

    It does what the pipeline will do, with one day of the source, and an object and a table of its own, which it
    removes. Prints a line for each step, with what to grant where one fails. Exits with status 1 if any fails.
    """
    postgres, stored, bigquery = read_services()
    ill = False
    for finding in chain(
        examine_source(open_source(postgres)), examine_lake(Lake(stored)), examine_warehouse(open_warehouse(bigquery))
    ):
        ill |= finding.problem is not None
        click.echo(f"FAILS  {finding.tried}: {finding.problem}" if finding.problem else f"ok     {finding.tried}")
    if ill:
        sys.exit(1)
