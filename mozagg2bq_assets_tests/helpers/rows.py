"""Rows: as PostgreSQL says they are, and as a Parquet file has them."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psycopg
import pyarrow.parquet
from psycopg import sql

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable

FIRST_DAY = date(2019, 12, 1)
TODAY = datetime.now(UTC).date()

Rows: TypeAlias = Counter[tuple[object, ...]]


class Row(NamedTuple):
    """A row as PostgreSQL's text of its two values."""

    dimensions: str | None
    histogram: str | None


def fill(connection: psycopg.Connection, table: str, rows: Sequence[Row]) -> None:
    """Make a table of those rows."""
    name = sql.Identifier(table)
    connection.execute(sql.SQL("CREATE TABLE {} (dimensions jsonb, histogram bigint[])").format(name))
    with connection.cursor() as cursor:
        cursor.executemany(sql.SQL("INSERT INTO {} VALUES (%s::jsonb, %s::bigint[])").format(name), rows)


def expected_rows(connection: psycopg.Connection, tables: Sequence[str]) -> Rows:
    """What PostgreSQL says a partition's rows are."""
    rows: Rows = Counter()
    dimensions = sql.SQL(", ").join(sql.SQL("dimensions->>{}").format(sql.Literal(key)) for key in DIMENSIONS)
    query = sql.SQL("SELECT {}, array_to_json(histogram)::text FROM {}")
    for name in tables:
        table = SourceTable.parse(name)
        assert table is not None
        fixed = (TODAY, table.aggregate_type.value, Partition.of(table).ds_nodash, table.channel, table.version)
        for row in connection.execute(query.format(dimensions, sql.Identifier(name))):
            rows[(*fixed, *row)] += 1
    return rows


def parquet_rows(path: Path) -> Rows:
    """The rows of a Parquet file."""
    table = pyarrow.parquet.read_table(path)
    assert table.column_names == [column.name for column in COLUMNS]
    return Counter(zip(*(column.to_pylist() for column in table.columns), strict=True))
