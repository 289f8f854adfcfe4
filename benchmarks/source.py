"""The source that the benchmarks read: days as large as real ones, of both types, in a catalog of 30,000 tables."""

from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
from psycopg import sql

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import STATE_DIR, Stack
from mozagg2bq_assets.schema import AggregateType

STACK = Stack(STATE_DIR / "benchmarks")
FIRST_DAY = date(2019, 12, 1)
DAYS = {AggregateType.SUBMISSION_DATE: 10, AggregateType.BUILD_ID: 20}
CATALOG = 30_000
FIRST_EMPTY_DAY = date(2016, 1, 1)


def prepare(connection: psycopg.Connection) -> Iterator[str]:
    """Make what is not there yet; yields a line for each step."""
    connection.execute("SELECT setseed(0.2019)")
    sample.create_update_dates(connection)
    for aggregate_type in AggregateType:
        first, *others = days(FIRST_DAY, DAYS[aggregate_type])
        if not _has_day(connection, aggregate_type, first):
            yield f"{aggregate_type} {first}: {len(list(sample.seed_day(connection, aggregate_type, first, 1)))} tables"
        for day in others:
            if not _has_day(connection, aggregate_type, day):
                yield f"{aggregate_type} {day}: {_copy_day(connection, aggregate_type, first, day)} tables"
    yield f"{_fill_catalog(connection)} tables"
    connection.execute("VACUUM ANALYZE")


def days(first: date, count: int) -> list[date]:
    """Consecutive days."""
    return [first + timedelta(days=n) for n in range(count)]


def _has_day(connection: psycopg.Connection, aggregate_type: AggregateType, day: date) -> bool:
    name = sample.table_names(aggregate_type, day, sample.REAL_TABLES[aggregate_type])[-1]
    return connection.execute("SELECT FROM pg_tables WHERE tablename = %s", (name,)).fetchone() is not None


def _copy_day(connection: psycopg.Connection, aggregate_type: AggregateType, source: date, day: date) -> int:
    """The same rows under another date: making them up anew takes longer, and so does an index that grows with them."""
    count = sample.REAL_TABLES[aggregate_type]
    names = zip(*(sample.table_names(aggregate_type, each, count) for each in (source, day)), strict=True)
    with connection.transaction():
        for original, copy in names:
            connection.execute(
                sql.SQL("CREATE TABLE {} AS TABLE {}").format(sql.Identifier(copy), sql.Identifier(original))
            )
            sample.create_index(connection, copy)
    return count


def _fill_catalog(connection: psycopg.Connection) -> int:
    """Days of empty tables with their indexes, until the catalog is as large as it should be."""
    (count,) = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() or (0,)
    for day in days(FIRST_EMPTY_DAY, CATALOG):
        if count >= CATALOG:
            break
        if not _has_day(connection, AggregateType.SUBMISSION_DATE, day):
            names = sample.table_names(AggregateType.SUBMISSION_DATE, day, 100)
            with connection.transaction():
                for name in names:
                    sample.create_table(connection, name)
            count += len(names)
    return int(count)
