"""The source that the benchmarks read: days as large as real ones, of both types, in a catalog of 30,000 tables."""

from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
from psycopg import sql

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import STATE_DIR, Stack
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType

STACK = Stack(STATE_DIR / "benchmarks")
FIRST_DAY = date(2019, 12, 1)
DAYS = {AggregateType.SUBMISSION_DATE: 10, AggregateType.BUILD_ID: 20}
CATALOG = 30_000
FIRST_EMPTY_DAY = date(2016, 1, 1)
# Days of 250 rows in 6 tables: through the stages, they wait for the most part.
FIRST_SMALL_DAY, SMALL_DAYS, SMALL_SCALE = date(2018, 8, 1), 60, 0.001


def prepare(connection: psycopg.Connection) -> Iterator[str]:
    """Make what is not there yet; yields a line for each step."""
    connection.execute("SELECT setseed(0.2019)")
    sample.create_update_dates(connection)
    for aggregate_type in AggregateType:
        first, *others = (Partition(aggregate_type, day) for day in days(FIRST_DAY, DAYS[aggregate_type]))
        if not _is_there(connection, first):
            yield f"{first}: {len(list(sample.seed_partition(connection, first, 1)))} tables"
        for other in others:
            if not _is_there(connection, other):
                yield f"{other}: {_copy(connection, first, other)} tables"
    small = [Partition(AggregateType.BUILD_ID, day) for day in days(FIRST_SMALL_DAY, SMALL_DAYS)]
    for partition in small:
        if not _is_there(connection, partition):
            yield f"{partition}: {len(list(sample.seed_partition(connection, partition, SMALL_SCALE)))} tables"
    yield f"{_fill_catalog(connection)} tables"
    yield from prepare_eras(connection)


# A full day of each era of the source, and one whose rows have all shapes that the query below makes.
ERAS = {"2019": FIRST_DAY, "2017": date(2017, 6, 15), "2016": date(2016, 9, 19), "mixed": date(2018, 6, 1)}

# Twenty shapes: one of four keys left out, or none, times one of four members added or replaced.
MIXED = sql.SQL("""
CREATE TABLE {target} AS SELECT (
    dimensions - coalesce((ARRAY['os', 'label', 'metric', 'application'])[n % 5], '') || (ARRAY[
        '{{"e10sEnabled": true}}', '{{"child": false}}', '{{"osVersion": null}}', '{{"process": 1}}'
    ]::jsonb[])[1 + n % 4]
) AS dimensions, histogram FROM (SELECT *, (row_number() OVER ())::int AS n FROM {source}) AS numbered
""")


def prepare_eras(connection: psycopg.Connection) -> Iterator[str]:
    """Make the days of ERAS that are not there yet; yields a line for each."""
    connection.execute("SELECT setseed(0.2019)")
    sample.create_update_dates(connection)
    kind = AggregateType.SUBMISSION_DATE
    for era, day in ERAS.items():
        partition = Partition(kind, day)
        if not _is_there(connection, partition) and era == "mixed":
            both = (sample.table_names(each, 100) for each in (Partition(kind, FIRST_DAY), partition))
            for source, target in zip(*both, strict=True):
                names = {"source": sql.Identifier(source), "target": sql.Identifier(target)}
                connection.execute(MIXED.format(**names))
        elif not _is_there(connection, partition):
            list(sample.seed_partition(connection, partition, 1))
        yield f"{partition}: {era}"
    connection.execute("VACUUM ANALYZE")


def days(first: date, count: int) -> list[date]:
    """Consecutive days."""
    return [first + timedelta(days=n) for n in range(count)]


def _is_there(connection: psycopg.Connection, partition: Partition) -> bool:
    name = sample.table_names(partition, sample.REAL_TABLES[partition.aggregate_type])[-1]
    return connection.execute("SELECT FROM pg_tables WHERE tablename = %s", (name,)).fetchone() is not None


def _copy(connection: psycopg.Connection, source: Partition, target: Partition) -> int:
    """The same rows under another date: making them up anew takes longer, and so does an index that grows with them."""
    count = sample.REAL_TABLES[source.aggregate_type]
    names = zip(*(sample.table_names(each, count) for each in (source, target)), strict=True)
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
        partition = Partition(AggregateType.SUBMISSION_DATE, day)
        if not _is_there(connection, partition):
            names = sample.table_names(partition, 100)
            with connection.transaction():
                for name in names:
                    sample.create_table(connection, name)
            count += len(names)
    return int(count)
