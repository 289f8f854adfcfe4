"""What `mozagg2bq verify` and `make demo` print: every day's counts, and what differs."""

from collections.abc import Callable, Iterable, Iterator
from datetime import date

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.content import ContentCheck
from mozagg2bq_assets.pipeline.reconcile import DayReport, Report, reconcile
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import read_services


def reports(
    types: Iterable[AggregateType],
    wanted: DayRange,
    count_source: bool,
    compared: Callable[[date], None] = lambda _: None,
    announce: Callable[[str], None] | None = None,
) -> Iterator[Report]:
    """Compare source, lake and BigQuery, type by type. `compared` is told each day that is done.

    What the rows hold is compared too where there is an `announce`, which is told what BigQuery will read for that.
    """
    postgres, stored, bigquery = read_services()
    lake, warehouse = Lake(stored), open_warehouse(bigquery)
    with open_source(postgres).connect() as connection, scratch_folder() as folder:
        for aggregate_type in types:
            content = None
            if announce:
                size = warehouse.content_bytes(aggregate_type, wanted)
                announce(f"BigQuery reads {size:,} bytes of {warehouse.table_id(aggregate_type)} for the content sums")
                content = ContentCheck(connection, lake, warehouse.content_sums(aggregate_type, wanted), folder)
            yield reconcile(connection, lake, warehouse, aggregate_type, wanted, count_source, content, compared)


def report_lines(report: Report) -> Iterator[str]:
    """A type's counts day by day, the notes, what differs and how to mend it, and a line that sums that up."""
    yield f"\n{report.aggregate_type:<16}{'tables':>8}{'source':>14}{'dump':>14}{'Parquet':>14}{'BigQuery':>14}"
    yield from map(_counts_line, report.days)
    yield from (f"note: {note}" for note in report.notes)
    yield from (f"DIFFERS: {difference}" for difference in report.grouped)
    days, differing = len(report.days), len(report.differing)
    agree = "1 day agrees" if days == 1 else f"{days} days agree"
    if empty := sum(not (day.source_tables or day.parquet_rows or day.bigquery_rows) for day in report.days):
        agree += f", {empty} of them without rows"
    yield f"{report.aggregate_type}: {f'{differing} of {days} days differ' if differing else agree}"


def _counts_line(day: DayReport) -> str:
    """Counts alone: `-` where the source was not counted, or the lake has no readable version."""
    counts = (day.source_tables, day.source_rows, day.dump_rows, day.parquet_rows, day.bigquery_rows)
    shown = ["-" if count is None else f"{count:,}" for count in counts]
    return f"{day.day!s:<16}{shown[0]:>8}" + "".join(f"{text:>14}" for text in shown[1:])
