"""The source's tables: which belong to a partition, and how many rows they have."""

from collections.abc import Iterable

import psycopg
from psycopg import sql

from mozagg2bq_assets.model.partitions import Partition, ds_nodash
from mozagg2bq_assets.model.tables import AggregateType, SourceTable

# Plain tables of schema public whose name starts with the type; which of them are aggregate tables, SourceTable says.
_TABLES = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relispartition AND starts_with(relname, %s)
"""


def list_names(connection: psycopg.Connection, aggregate_type: AggregateType) -> list[str]:
    """Names of all tables that look like the type's, sorted."""
    return _names(connection, _TABLES, [f"{aggregate_type}_"])


def list_tables(connection: psycopg.Connection, partitions: Iterable[Partition]) -> list[SourceTable]:
    """The source tables of those partitions, sorted by type and name."""
    days: dict[AggregateType, list[str]] = {}
    for partition in partitions:
        days.setdefault(partition.aggregate_type, []).append(ds_nodash(partition.day))
    return [
        table
        for aggregate_type, wanted in sorted(days.items())
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


def count_table(connection: psycopg.Connection, table: str) -> int:
    """Rows of one table of schema public, without those of tables that inherit from it."""
    query = sql.SQL("SELECT count(*) FROM ONLY public.{}").format(sql.Identifier(table))
    (rows,) = connection.execute(query).fetchone() or (0,)
    return int(rows)


def _names(connection: psycopg.Connection, query: str, parameters: list[str]) -> list[str]:
    return sorted(name for (name,) in connection.execute(query.encode(), parameters))
