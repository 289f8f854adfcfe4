"""Sample data in the source's real shape, made by the server itself: the days before today, some shaped as old ones."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType

# Dagster's pages show recent days best: its plots have room for 120, its backfill dialog opens on the last ones.
DAYS = 14
# Sample rows imitate those of a real date. ERAS gives that date by days before today; other days imitate LAST_ERA.
LAST_ERA = date(2019, 12, 1)
ERAS = {13: date(2015, 7, 1), 12: date(2016, 9, 19), 11: date(2017, 6, 15)}
MISSING_DAY = 4
# `grow` adds to this day of build_id, as the aggregator adds to a build's tables for weeks.
GROWING_DAY = 6
# Monday to Sunday: fewer people use Firefox at weekends.
SHARES = (1.0, 1.02, 1.01, 0.99, 0.95, 0.72, 0.7)

# A real day, 2019-12-01: 100 tables and 3,123,817 rows by submission date, and about a twelfth of the rows by build id.
REAL_ROWS = {AggregateType.SUBMISSION_DATE: 3_123_817, AggregateType.BUILD_ID: 250_000}
REAL_TABLES = {AggregateType.SUBMISSION_DATE: 100, AggregateType.BUILD_ID: 8}
CHANNELS = ("nightly", "beta", "release", "esr", "aurora", "nightly_cck")

# The rows are skewed, as the real ones are: the first table of a day holds a quarter of them.
FIRST_SHARE = 0.25

FULL = {
    "os": "Windows_NT",
    "child": "false",
    "label": "",
    "metric": "GC_MS",
    "osVersion": "10.0",
    "application": "Firefox",
    "architecture": "x86-64",
}

# What real tables hold now and then: (dimensions, histogram).
Row = tuple[Mapping[str, object] | None, Sequence[int | None] | None]

EDGE_ROWS: tuple[Row, ...] = (
    ({**FULL, "label": 'says "hello"'}, [1, 2, 3]),
    ({**FULL, "label": "C:\\Windows\\n"}, [0, 1, 1]),
    ({**FULL, "label": "tab\there, line\nthere, return\r"}, [5, 0, 5, 1]),
    ({**FULL, "label": "naïve 日本語 🦊"}, [7, 7, 1]),
    ({**FULL, "label": "\\N"}, [1, 1, 1]),
    ({**FULL, "label": "\\."}, [1, 0, 1]),
    (FULL, None),
    (FULL, []),
    (FULL, [None, 1, None]),
    (FULL, [9223372036854775807, -9223372036854775808, 0]),
    ({"os": "Linux", "metric": "GC_MS"}, [2, 2, 1]),
    ({}, [1, 1, 1]),
    (None, [1, 1, 1]),
)

# Days before these: `child` was a boolean, there was a key `e10sEnabled`, tables were made with an `id`.
CHILD_IS_TEXT, NO_E10S, NO_ID = date(2017, 2, 1), date(2018, 3, 30), date(2015, 8, 1)

ROWS = sql.SQL("""
INSERT INTO {table} (dimensions, histogram)
SELECT jsonb_build_object(
        'os', (ARRAY['Windows_NT', 'Darwin', 'Linux'])[1 + (random() * random() * 3)::int % 3],
        'child', {child},
        'label', CASE WHEN random() < 0.7 THEN '' ELSE 'key ' || (random() * 5000)::int END,
        'metric', 'HISTOGRAM_' || upper(substr(md5((i % 1500)::text), 1, 12)),
        'osVersion', (ARRAY['10.0', '6.1', '6.3', '18.7.0', '5.3.0'])[1 + (random() * 4)::int],
        'application', 'Firefox',
        'architecture', (ARRAY['x86', 'x86-64'])[1 + (random() < 0.6)::int]
    ) || {more}, (
        SELECT array_agg((random() ^ 9 * 4000)::bigint * (bucket % 2))
        FROM generate_series(1, 3 + i % 50) AS bucket
    )
FROM generate_series(1, {rows}) AS i
""")
BOOLEAN_CHILD = sql.SQL("random() < 0.5")
TEXT_CHILD = sql.SQL("(ARRAY['true', 'false', 'gpu', 'extension'])[1 + (random() * random() * 4)::int % 4]")
E10S = sql.SQL("jsonb_build_object('e10sEnabled', random() < 0.5)")
NOTHING = sql.SQL("'{}'::jsonb")


def days() -> DayRange:
    """The sample days: those before today."""
    today = datetime.now(UTC).date()
    return DayRange(today - timedelta(days=DAYS), today)


def seed(connection: psycopg.Connection, scale: float = 0.001) -> Iterator[str]:
    """Replace the sample days in the database; yields each table's name as it is filled.

    At scale 1 each day is about as large as a real one: of submission_date 100 tables, 3.12 million rows and 719 MB of
    COPY text on a Monday, of build_id 8 tables and 250,000 rows.
    Seeding again on the same day leaves exactly the same tables, and touches no table outside the sample days.
    """
    connection.execute("SELECT setseed(0.2019)")
    create_update_dates(connection)
    sampled = days()
    for aggregate_type in AggregateType:
        for day in sampled:
            ago, partition = (sampled.end - day).days, Partition(aggregate_type, day)
            drop_partition(connection, partition)
            if aggregate_type is AggregateType.BUILD_ID or ago != MISSING_DAY:
                yield from seed_partition(connection, partition, scale * SHARES[day.weekday()], ERAS.get(ago, LAST_ERA))


def grow(connection: psycopg.Connection) -> Iterator[str]:
    """Add a tenth to one day of build_id, as the aggregator does; yields each table's name.

    Raises UserError where its tables are not there.
    """
    partition = Partition(AggregateType.BUILD_ID, days().end - timedelta(days=GROWING_DAY))
    names = partition_tables(connection, partition)
    if not names:
        raise UserError(f"the source has no tables of {partition}: `mozagg2bq local seed` makes them")
    for name in names:
        with connection.transaction():
            connection.execute(
                sql.SQL("INSERT INTO {0} SELECT * FROM {0} WHERE random() < 0.1").format(sql.Identifier(name))
            )
            connection.execute(
                "UPDATE table_update_dates SET submission_dates = submission_dates"
                " || to_char(%s + cardinality(submission_dates), 'YYYYMMDD') WHERE tablename = %s",
                (partition.day, name),
            )
        yield name


def create_update_dates(connection: psycopg.Connection) -> None:
    """The aggregator's own record of what it has merged into each table; `seed_partition` writes to it."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS table_update_dates (tablename text PRIMARY KEY, submission_dates text[])"
    )


def is_there(connection: psycopg.Connection) -> bool:
    """Whether seeding has begun; one that was interrupted counts too."""
    return connection.execute("SELECT FROM pg_tables WHERE tablename = 'table_update_dates'").fetchone() is not None


def seed_partition(
    connection: psycopg.Connection, partition: Partition, scale: float, era: date | None = None
) -> Iterator[str]:
    """Make and fill the tables of one partition; yields their names. The first also holds the edge cases.

    They are shaped as those of the day `era` were, which by default is the partition's own.
    """
    era = era or partition.day
    names = table_names(partition, max(6, round(REAL_TABLES[partition.aggregate_type] * min(scale, 1))))
    total = max(20 * len(names), round(REAL_ROWS[partition.aggregate_type] * scale))
    for n, (name, rows) in enumerate(zip(names, row_counts(total, len(names)), strict=True)):
        with connection.transaction():
            create_table(connection, name, "id serial, " if era < NO_ID else "")
            if n == 0:
                insert(connection, name, edge_rows(era))
                rows -= len(EDGE_ROWS)
            connection.execute(rows_query(name, rows, era))
            connection.execute(
                "INSERT INTO table_update_dates VALUES (%s, ARRAY[%s])"
                " ON CONFLICT (tablename) DO UPDATE SET submission_dates = excluded.submission_dates",
                (name, partition.ds_nodash),
            )
        yield name


def rows_query(table: str, rows: int, day: date) -> sql.Composed:
    """Fill a table with so many rows of the era of that day."""
    return ROWS.format(
        table=sql.Identifier(table),
        rows=sql.Literal(rows),
        child=BOOLEAN_CHILD if day < CHILD_IS_TEXT else TEXT_CHILD,
        more=E10S if day < NO_E10S else NOTHING,
    )


def edge_rows(day: date) -> list[Row]:
    """The edge cases with the keys and kinds of values that the era of that day had."""
    old: dict[str, object] = {"child": False} if day < CHILD_IS_TEXT else {}
    more: dict[str, object] = {"e10sEnabled": True} if day < NO_E10S else {}
    return [(dimensions and {**dimensions, **old, **more}, histogram) for dimensions, histogram in EDGE_ROWS]


def table_names(partition: Partition, count: int) -> list[str]:
    """Names of a partition's tables. Build ids carry a time in every second table, so several fall on one day."""
    names = []
    for n in range(count):
        time = f"{n:02d}3045" if partition.aggregate_type is AggregateType.BUILD_ID and n % 2 else ""
        channel, version = CHANNELS[n % len(CHANNELS)], 73 - n // len(CHANNELS)
        names.append(f"{partition.aggregate_type}_{channel}_{version}_{partition.ds_nodash}{time}")
    return names


def row_counts(total: int, tables: int) -> list[int]:
    """Divide a day's rows: a quarter to the first table, the rest to the others, ever less to each."""
    weights = [1 / n for n in range(1, tables)]
    others = [int(total * (1 - FIRST_SHARE) * weight / sum(weights)) for weight in weights]
    return [total - sum(others), *others]


def create_table(connection: psycopg.Connection, name: str, in_front: LiteralString = "") -> None:
    """An empty aggregate table with its index, as the aggregator makes it; `in_front` are more columns."""
    columns = sql.SQL(in_front) + sql.SQL("dimensions jsonb, histogram bigint[]")
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(sql.Identifier(name), columns))
    create_index(connection, name)


def create_index(connection: psycopg.Connection, name: str) -> None:
    """The index of an aggregate table."""
    connection.execute(sql.SQL("CREATE INDEX ON {} USING gin (dimensions jsonb_path_ops)").format(sql.Identifier(name)))


def insert(
    connection: psycopg.Connection,
    table: str,
    rows: Sequence[Row],
) -> None:
    """Put rows of Python values into an aggregate table."""
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("INSERT INTO {} (dimensions, histogram) VALUES (%s, %s::bigint[])").format(sql.Identifier(table)),
            [(None if dimensions is None else Jsonb(dimensions), histogram) for dimensions, histogram in rows],
        )


def drop_partition(connection: psycopg.Connection, partition: Partition) -> None:
    """Drop every table of a partition and its record of updates, which the trimming job would leave."""
    for name in partition_tables(connection, partition):
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        connection.execute("DELETE FROM table_update_dates WHERE tablename = %s", (name,))


def partition_tables(connection: psycopg.Connection, partition: Partition) -> list[str]:
    """The names of a partition's tables."""
    pattern = f"^{partition.aggregate_type}_.+_[^_]+_{partition.ds_nodash}[0-9]*$"
    found = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename ~ %s ORDER BY 1", (pattern,)
    )
    return [name for (name,) in found.fetchall()]
