"""`mozagg2bq verify`: the command that compares source, lake and BigQuery."""

import sys
from datetime import date

import click

from mozagg2bq_assets.cli.options import (
    all_partitions,
    check_partitions,
    date_option,
    day_range,
    end_date_option,
    type_option,
    types,
)
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.report import report_lines, reports


@click.command()
@type_option(required=False)
@date_option(required=False)
@end_date_option
@click.option("--content", is_flag=True, help="Compare what the rows hold too: BigQuery charges for what it reads.")
def verify(aggregate_type: AggregateType | None, day: date | None, end_date: date | None, content: bool) -> None:
    """Compare source, lake and BigQuery, day by day; with --date the source's rows too, not its tables alone."""
    if end_date and not day:
        raise UserError("--end-date goes with --date")
    wanted = day_range(day, end_date) if day else all_partitions()
    if day:
        check_partitions(wanted)
    differs = False
    for report in reports(types(aggregate_type), wanted, day is not None, _announce if content else None):
        click.echo("\n".join(report_lines(report)))
        differs |= bool(report.differences)
    if differs:
        sys.exit(1)


def _announce(line: str) -> None:
    click.echo(line, err=True)
