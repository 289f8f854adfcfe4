"""What `mozagg2bq verify` and `make demo` print: every day's counts, and what differs."""

from collections.abc import Iterable, Iterator

import click

from mozagg2bq_assets import environment
from mozagg2bq_assets.reconcile import Range, Report, reconcile
from mozagg2bq_assets.schema import AggregateType


def reports(types: Iterable[AggregateType], wanted: Range) -> Iterator[Report]:
    """Compare source, lake and BigQuery, type by type."""
    lake, warehouse = environment.lake(), environment.warehouse()
    with environment.postgres().connect() as connection:
        for aggregate_type in types:
            yield reconcile(connection, lake, warehouse, aggregate_type, wanted)


def print_reports(found: Iterable[Report]) -> bool:
    """Print every day's counts, what differs, and the notes; whether nothing differs."""
    agreed = True
    for report in found:
        click.echo(f"\n{report.aggregate_type:<16}{'source':>14}{'dump':>14}{'Parquet':>14}{'BigQuery':>14}")
        for day in report.days:
            source = f"{day.source_tables} tables" if day.source_rows is None else f"{day.source_rows:,}"
            source = source if day.source_tables else "no tables"
            counts = [f"{rows:,}" if rows is not None else "-" for rows in (day.dump_rows, day.parquet_rows)]
            click.echo(f"{day.day!s:<16}{source:>14}{counts[0]:>14}{counts[1]:>14}{day.bigquery_rows:>14,}")
        for note in report.notes:
            click.echo(f"note: {note}")
        for difference in report.differences:
            click.echo(f"DIFFERS: {difference}")
            agreed = False
    return agreed
