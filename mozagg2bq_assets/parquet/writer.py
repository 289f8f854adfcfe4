"""COPY text to Parquet, in one DuckDB query over all files of a partition.

DuckDB splits, unescapes and parses; `shapes` proves what it has read, and what no shape proves goes through `jsonb`.
The text comes through ISA-L, which checks gzip's CRC, as DuckDB does not. Nothing is held but the row groups being
written, whatever the size of the day.
"""

import os
import random
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow
from duckdb.func import ARROW

from mozagg2bq_assets.errors import (
    DISK_IS_FULL,
    MEMORY_IS_SHORT,
    NO_SPACE,
    DataError,
    OperatorError,
    TransientError,
    UserError,
    brief,
)
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts, UnmappedKeys, check_counts
from mozagg2bq_assets.parquet.exact import ExactReader
from mozagg2bq_assets.parquet.jsonb import check_row, object_text
from mozagg2bq_assets.parquet.query import NAMES, PLACES, create_macros, rows_query
from mozagg2bq_assets.parquet.reader import count_channels
from mozagg2bq_assets.parquet.shapes import LONGEST_TEXT, Shapes
from mozagg2bq_assets.postgres.archive import DataFile, PartitionArchive
from mozagg2bq_assets.postgres.copytext import COLUMNS, row_chunks, rows

PARQUET_FILE = "aggregates.parquet"

# So many rows make a row group of 16 MiB, the least that BigQuery recommends: a group is held in memory until it is
# written. Rows of a megabyte end a group by its size instead.
ROW_GROUP_ROWS = 217_088
ROW_GROUP_BYTES = 128 * 2**20
# Distinct values of a column in a group, beyond which DuckDB gives up its dictionary. Its own default is a fifth of the
# rows: for arrays, which hardly repeat, it then builds a dictionary in vain, which takes memory, and so spills to disk.
DICTIONARY_VALUES = 20_000
# Rows sampled from all files together to find the first shapes; this takes 0.03 s.
SAMPLED_ROWS = 1_000
# Enough for rows of 20 MiB on one thread. With half as much, row groups that are being written spill to disk.
THREAD_MEMORY = 270 * 2**20
# What a thread has freed goes back to the system from so much on. DuckDB's own default is 128 MiB.
FREED_BYTES = "1MiB"

_CHUNKS = pyarrow.schema(
    [(name, pyarrow.large_string()) for name in (*NAMES, "chunk")] + [(name, pyarrow.int32()) for name in PLACES]
)


@dataclass(frozen=True)
class ParquetFile:
    """A partition's Parquet file on disk: its rows as read back from it, keys that have no column, seconds it took."""

    path: Path
    rows: ChannelCounts
    unmapped: UnmappedKeys
    seconds: float


def write_parquet(
    archive: PartitionArchive,
    ingest_date: date,
    output: Path,
    expected: TableCounts | None = None,
    threads: int = os.cpu_count() or 1,
) -> ParquetFile:
    """Write all rows of an archive into one Parquet file, and read every byte of the archive on the way.

    In the file, the column `ingest_date` is REQUIRED, the others OPTIONAL. `expected` has the rows of each table where
    they are known. Raises DataError, naming file and place, for a file that is not whole or a row that is not as
    PostgreSQL prints one, and where a table or the Parquet file does not have the rows it should have; then there is
    no file.
    """
    started = time.monotonic()
    shapes = _sampled_shapes(archive)
    try:
        while isinstance(converted := _convert(archive, ingest_date, output, expected, threads, shapes), Shapes):
            shapes = converted
    except BaseException as error:
        output.unlink(missing_ok=True)
        # DuckDB wraps what is raised while it asks for the next chunk, Ctrl-C among it.
        if isinstance(error, duckdb.Error) and "KeyboardInterrupt" in str(error):
            raise KeyboardInterrupt from error
        if isinstance(error, duckdb.Error):
            raise _cause(error, archive) from error
        raise
    return ParquetFile(output, *converted, time.monotonic() - started)


def _convert(
    archive: PartitionArchive,
    ingest_date: date,
    output: Path,
    expected: TableCounts | None,
    threads: int,
    shapes: Shapes,
) -> tuple[ChannelCounts, UnmappedKeys] | Shapes:
    """Rows and unmapped keys of the file; or more shapes, where many rows fit none of `shapes`."""
    rows_read, reader = Counter[str](), ExactReader(shapes)
    try:
        with duckdb.connect(config=_config(threads, output.parent)) as connection:
            _define(connection, archive, reader)
            chunks = _chunks(archive, rows_read, expected)
            connection.register("chunks", pyarrow.RecordBatchReader.from_batches(_CHUNKS, chunks))
            connection.execute(_copy_statement(shapes), {"ingest_date": ingest_date, "output": str(output)})
            written = count_channels(output, connection)
    except duckdb.Error:
        if reader.learned is not None:
            return reader.learned
        raise
    read = TableCounts(rows_read)
    if expected is not None:
        check_counts(f"dump {archive.directory.name}", expected, read)
    check_counts(f"{output.name} of {archive.directory.name}", read.by_channel(), written)
    return written, reader.unmapped()


def _sampled_shapes(archive: PartitionArchive) -> Shapes:
    """Shapes of some rows at the beginning of every file. Raises DataError for one that cannot be read."""
    texts: list[str] = []
    for file in archive.data_files:
        with closing(row_chunks(file.path)) as chunks:
            lines = next(chunks, b"").split(b"\n")[:-1]
        # At random, since rows may alternate.
        sample = random.sample(lines, min(SAMPLED_ROWS // len(archive.data_files) + 1, len(lines)))
        texts += (object_text(line, file.columns) for line in sample if len(line) <= LONGEST_TEXT)
    return Shapes().learn(texts)


def _config(threads: int, temp_directory: Path) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "threads": threads,
        "memory_limit": f"{threads * THREAD_MEMORY}B",
        "temp_directory": str(temp_directory),
        "preserve_insertion_order": False,
        "allocator_flush_threshold": FREED_BYTES,
    }


def _define(connection: duckdb.DuckDBPyConnection, archive: PartitionArchive, reader: ExactReader) -> None:
    """What the query uses: two functions, the macros, and an enumeration for each of NAMES."""
    connection.create_function("exact_dimensions", reader.dimensions, ["VARCHAR"], "VARCHAR[]")
    connection.create_function("counted", reader.count, ["TINYINT"], "TINYINT", type=ARROW, side_effects=True)
    create_macros(connection)
    names = [_names(archive, file) for file in archive.data_files]
    for name, values in zip(NAMES, zip(*names, strict=True), strict=True):
        connection.execute(f"CREATE TYPE {name} AS ENUM (SELECT DISTINCT unnest($values))", {"values": values})


def _copy_statement(shapes: Shapes) -> str:
    return f"""
        COPY ({rows_query(shapes)}) TO $output (FORMAT parquet, CODEC zstd, COMPRESSION_LEVEL 1,
            ROW_GROUP_SIZE {ROW_GROUP_ROWS}, ROW_GROUP_SIZE_BYTES {ROW_GROUP_BYTES},
            DICTIONARY_SIZE_LIMIT {DICTIONARY_VALUES})
    """


def _names(archive: PartitionArchive, file: DataFile) -> tuple[str, ...]:
    partition = archive.partition
    return (partition.aggregate_type.value, partition.ds_nodash, file.table.channel, file.table.version)


def _chunks(
    archive: PartitionArchive, rows_read: Counter[str], expected: TableCounts | None
) -> Iterator[pyarrow.RecordBatch]:
    """The text of all files, a chunk of rows at a time, with what the table's name says. Counts the rows.

    Reading stops in a file that has more rows than expected: a small one may decompress to rows without end.
    """
    for file in archive.data_files:
        names = [_text(name.encode()) for name in _names(archive, file)]
        places = [_number(len(file.columns)), *(_number(file.columns.index(name) + 1) for name in COLUMNS)]
        for chunk in row_chunks(file.path):
            rows_read[file.table.name] += chunk.count(b"\n")
            yield pyarrow.record_batch([*names, _text(chunk[:-1]), *places], schema=_CHUNKS)
            if expected is not None and rows_read[file.table.name] > expected.get(file.table.name, 0):
                break


def _text(text: bytes) -> pyarrow.LargeStringArray:
    """An array of one string. Not by `pyarrow.array`, which imports pandas. Raises ArrowInvalid unless it is UTF-8."""
    offsets = pyarrow.py_buffer(struct.pack("qq", 0, len(text)))
    array = pyarrow.LargeStringArray.from_buffers(1, offsets, pyarrow.py_buffer(text))
    array.validate(full=True)
    return array


def _number(value: int) -> pyarrow.Int32Array:
    """An array of one number."""
    return pyarrow.Int32Array.from_buffers(pyarrow.int32(), 1, [None, pyarrow.py_buffer(struct.pack("i", value))])


def _cause(error: duckdb.Error, archive: PartitionArchive) -> OperatorError:
    """What this machine lacks, or what is wrong with the archive."""
    if NO_SPACE in str(error):
        return TransientError(DISK_IS_FULL)
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(MEMORY_IS_SHORT)
    return DataError(_locate_fault(archive.data_files) or f"{archive.directory}: {brief(str(error))}")


def _locate_fault(data_files: Iterable[DataFile]) -> str | None:
    """The first row that is not as PostgreSQL prints one, in words; row by row, since DuckDB's error does not say."""
    for file in data_files:
        for number, row in enumerate(rows(file.path), 1):
            try:
                check_row(row, file.columns)
            except ValueError as error:
                return f"{file.path.name}, line {number}: {error}"
    return None
