"""The source's tables: which belong to a partition, how many rows they have, and what these hold."""

from collections.abc import Iterable
from datetime import date

import psycopg
from psycopg import sql

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.model.content import ContentSum
from mozagg2bq_assets.model.partitions import Partition, days_by_type
from mozagg2bq_assets.model.tables import AggregateType, SourceTable

# Plain tables of schema public whose name starts with the type; which of them are aggregate tables, SourceTable says.
_TABLES = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relispartition AND starts_with(relname, %s)
"""

_CONTENT_SUM = sql.SQL("""
SELECT count(*), coalesce(sum(('x' || substr(hash, 1, 8))::bit(32)::bigint), 0),
    coalesce(sum(('x' || substr(hash, 9, 8))::bit(32)::bigint), 0)
FROM ONLY public.{table} CROSS JOIN LATERAL (
    SELECT md5(convert_to(
        string_agg(coalesce(octet_length(convert_to(value, 'UTF8')) || ':' || value, '-'), '' ORDER BY n), 'UTF8'
    )) AS hash
    FROM unnest(ARRAY[{values}]) WITH ORDINALITY AS columns (value, n)
) AS hashes
""")


def list_names(connection: psycopg.Connection, aggregate_type: AggregateType) -> list[str]:
    """Names of all tables that look like the type's, sorted."""
    return _names(connection, _TABLES, [f"{aggregate_type}_"])


def list_tables(connection: psycopg.Connection, partitions: Iterable[Partition]) -> list[SourceTable]:
    """The source tables of those partitions, sorted by type and name."""
    return [
        table
        for aggregate_type, wanted in sorted(days_by_type(partitions).items())
        for name in _names(
            connection, f"{_TABLES} AND relname ~ %s", [f"{aggregate_type}_", f"_({'|'.join(wanted)})[0-9]*$"]
        )
        if (table := SourceTable.parse(name)) is not None
    ]


def group_by_partition(tables: Iterable[SourceTable]) -> dict[Partition, list[SourceTable]]:
    """Tables by the partition that they belong to, in the order of partitions."""
    found: dict[Partition, list[SourceTable]] = {}
    for table in tables:
        found.setdefault(Partition.of(table), []).append(table)
    return dict(sorted(found.items()))


def sum_sizes(connection: psycopg.Connection, tables: Iterable[SourceTable]) -> int:
    """Bytes that tables take on the server's disk, without their indexes."""
    names = [table.name for table in tables]
    query = (
        "SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s)"
    )
    (size,) = connection.execute(query, [names]).fetchone() or (0,)
    return int(size or 0)


def count_table(connection: psycopg.Connection, table: str) -> int:
    """Rows of one table of schema public, without those of tables that inherit from it."""
    query = sql.SQL("SELECT count(*) FROM ONLY public.{}").format(sql.Identifier(table))
    (rows,) = connection.execute(query).fetchone() or (0,)
    return int(rows)


def content_sum(connection: psycopg.Connection, table: SourceTable, ingest_date: date) -> ContentSum:
    """The sum, as `model.content` has it, of one table's rows as they would be in Parquet under that date.

    Lengths and hashes are those of UTF-8, whatever the database's own encoding is.
    """
    fixed = {
        "ingest_date": str(ingest_date),
        "aggregate_type": table.aggregate_type.value,
        "ds_nodash": Partition.of(table).ds_nodash,
        "channel": table.channel,
        "version": table.version,
    }
    values = {
        **{name: sql.Literal(value) for name, value in fixed.items()},
        **{key: sql.SQL("dimensions->>{}").format(sql.Literal(key)) for key in DIMENSIONS},
        "aggregate": sql.SQL("array_to_json(histogram)::text"),
    }
    query = _CONTENT_SUM.format(
        values=sql.SQL(", ").join(sql.SQL("({})").format(values[column.name]) for column in COLUMNS),
        table=sql.Identifier(table.name),
    )
    rows, first, second = connection.execute(query).fetchone() or (0, 0, 0)
    return ContentSum(int(rows), int(first), int(second))


def _names(connection: psycopg.Connection, query: str, parameters: list[str]) -> list[str]:
    return sorted(name for (name,) in connection.execute(query.encode(), parameters))
