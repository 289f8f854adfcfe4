"""Parquet files as they are read back: their rows counted, their columns and partition checked, their first rows."""

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import duckdb

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.model.columns import COLUMNS
from mozagg2bq_assets.model.content import ContentSum, ContentSums
from mozagg2bq_assets.model.counts import ChannelCounts
from mozagg2bq_assets.model.partitions import Partition

PREVIEW_ROWS = 5
# The very file: no columns out of folders named `key=value`.
_FILE = "read_parquet($path, hive_partitioning = false)"


def count_channels(path: Path, connection: duckdb.DuckDBPyConnection | None = None) -> ChannelCounts:
    """Rows of a Parquet file by `channel version`."""
    query = f"SELECT channel || ' ' || version, count(*) FROM {_FILE} GROUP BY ALL ORDER BY ALL"
    with nullcontext(connection) if connection is not None else duckdb.connect() as used:
        return ChannelCounts(used.execute(query, {"path": literal(path)}).fetchall())


def content_sums(path: Path) -> ContentSums:
    """Sums, as `model.content` has them, of a Parquet file's rows by `channel version`."""
    values = (f'"{column.name}"::VARCHAR' for column in COLUMNS)
    written = ", ".join(f"coalesce(strlen({value}) || ':' || {value}, '-')" for value in values)
    query = f"""
        SELECT name, count(*), sum(('0x' || substr(hash, 1, 8))::BIGINT), sum(('0x' || substr(hash, 9, 8))::BIGINT)
        FROM (SELECT channel || ' ' || version AS name, md5(concat({written})) AS hash FROM {_FILE}) GROUP BY name
    """
    with duckdb.connect() as connection:
        found = connection.execute(query, {"path": literal(path)}).fetchall()
    return {name: ContentSum(*map(int, sums)) for name, *sums in found}


def check_partition(path: Path, partition: Partition) -> ChannelCounts:
    """Rows of a Parquet file by `channel version`. Raises DataError unless it has our columns and that partition."""
    try:
        with duckdb.connect() as connection:
            file = connection.sql(f"SELECT * FROM {_FILE}", params={"path": literal(path)})
            if file.columns != [column.name for column in COLUMNS]:
                raise DataError(
                    f"{path}: its columns are {', '.join(file.columns)}; `mozagg2bq to-parquet` makes other ones"
                )
            found = file.project("aggregate_type, ds_nodash").distinct().fetchall()
            if found != [(partition.aggregate_type, partition.ds_nodash)]:
                raise DataError(f"{path}: does not hold rows of {partition} only, but {found[:3]}")
            return count_channels(path, connection)
    except duckdb.Error as error:
        raise DataError(f"{path}: unreadable Parquet: {str(error).splitlines()[0]}") from error


def preview(path: Path) -> list[dict[str, Any]]:
    """The first rows of a Parquet file."""
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM {_FILE} LIMIT {PREVIEW_ROWS}", {"path": literal(path)})
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def literal(path: Path) -> str:
    """The path as a pattern that matches it alone: DuckDB takes every path for one."""
    return re.sub(r"([*?\[])", r"[\1]", str(path))
