"""`mozagg2bq verify`: the command that compares source, lake and BigQuery."""

import sys

import click

from mozagg2bq_assets.cli.options import days_options, debug_option, type_option, types
from mozagg2bq_assets.cli.partitions import all_partitions, check_partitions
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.report import report_lines, reports


@click.command()
@type_option(required=False)
@days_options(required=False)
@click.option("--content", is_flag=True, help="Compare what the rows hold too: BigQuery charges for what it reads.")
@debug_option
def verify(aggregate_type: AggregateType | None, days: DayRange | None, content: bool) -> None:
    """Compare source, lake and BigQuery, day by day.

    Without days, all partitions are compared, and the source's rows are counted only on days without a dump; with
    days, on all of them. Exits with status 1 if anything differs.
    """
    if days:
        check_partitions(days)
    differs = False
    for report in reports(
        types(aggregate_type), days or all_partitions(), days is not None, _announce if content else None
    ):
        click.echo("\n".join(report_lines(report)))
        differs |= bool(report.differences)
    if differs:
        sys.exit(1)


def _announce(line: str) -> None:
    click.echo(line, err=True)
