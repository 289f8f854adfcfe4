"""Parquet files as they are read back: their rows counted, their columns and partition checked, their first rows."""

from pathlib import Path
from typing import Any

import duckdb

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.model.columns import COLUMNS
from mozagg2bq_assets.model.counts import ChannelCounts
from mozagg2bq_assets.model.partitions import Partition

PREVIEW_ROWS = 5


def count_channels(path: Path, connection: duckdb.DuckDBPyConnection | None = None) -> ChannelCounts:
    """Rows of a Parquet file by `channel version`."""
    query = "SELECT channel || ' ' || version, count(*) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL"
    if connection is not None:
        return ChannelCounts(connection.execute(query, [str(path)]).fetchall())
    with duckdb.connect() as own:
        return ChannelCounts(own.execute(query, [str(path)]).fetchall())


def check_partition(path: Path, partition: Partition) -> ChannelCounts:
    """Rows of a Parquet file by `channel version`. Raises DataError unless it has our columns and that partition."""
    try:
        with duckdb.connect() as connection:
            file = connection.sql("SELECT * FROM read_parquet($path)", params={"path": str(path)})
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
        cursor = connection.execute(f"SELECT * FROM read_parquet(?) LIMIT {PREVIEW_ROWS}", [str(path)])
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
