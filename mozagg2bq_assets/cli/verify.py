"""`mozagg2bq verify`: the command that compares source, lake and BigQuery."""

import sys
from dataclasses import asdict
from datetime import date

import click

from mozagg2bq_assets.cli.options import (
    days_options,
    debug_option,
    json_option,
    paint,
    print_json,
    quiet_option,
    type_option,
    types,
)
from mozagg2bq_assets.cli.partitions import all_partitions, check_partitions
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.reconcile import Report
from mozagg2bq_assets.pipeline.report import report_lines, reports


@click.command()
@type_option(required=False)
@days_options(required=False)
@click.option("--content", is_flag=True, help="Compare what the rows hold too: BigQuery charges for what it reads.")
@json_option
@quiet_option
@debug_option
def verify(aggregate_type: AggregateType | None, days: DayRange | None, content: bool, as_json: bool) -> None:
    """Compare source, lake and BigQuery, day by day.

    Without days, all partitions are compared, and the source's rows are counted only on the last days and on days
    without a dump; with days, on all of them. Exits with status 1 if anything differs.
    """
    if days:
        check_partitions(days)
    wanted, chosen = days or all_partitions(), types(aggregate_type)
    found = list[Report]()
    with progress("comparing", len(wanted) * len(chosen)) as tell:

        def compared(day: date) -> None:
            done = len(found) * len(wanted) + (day - wanted.start).days + 1
            tell(done, f"{chosen[len(found)]} {day}")

        for report in reports(chosen, wanted, days is not None, compared, _announce if content else None):
            found.append(report)
    if as_json:
        print_json([asdict(report) for report in found])
    else:
        lines = [line for report in found for line in report_lines(report)]
        click.echo("\n".join(paint(line, "red") if line.startswith("DIFFERS:") else line for line in lines))
    if any(report.differing for report in found):
        sys.exit(1)


def _announce(line: str) -> None:
    click.echo(line, err=True)
