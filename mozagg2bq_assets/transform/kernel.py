"""COPY text to Parquet, in one DuckDB query over all files given.

DuckDB splits, unescapes and parses; what it would read differently from PostgreSQL goes through `exact`. The text comes
through ISA-L, which checks gzip's CRC, as DuckDB does not. Nothing is held but the row groups being written, whatever
the size of the day.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow

from mozagg2bq_assets.errors import DataError, check_counts
from mozagg2bq_assets.pgdump.archive import DataFile, DayArchive
from mozagg2bq_assets.pgdump.copytext import row_chunks, rows
from mozagg2bq_assets.schema import COLUMNS, DIMENSIONS, AggregateType, ds_nodash, rows_by_channel
from mozagg2bq_assets.transform.exact import ARRAY, UnmappedKeys, check_row, dimension_values

PARQUET_FILE = "aggregates.parquet"

# So many rows make a row group of 16 MiB and more; rows of a megabyte end a group by its size instead.
ROW_GROUP_ROWS = 245_760
ROW_GROUP_BYTES = 128 * 2**20
# Distinct values of a column in a group, beyond which DuckDB gives up its dictionary. Its own default is a fifth of the
# rows: for arrays, which hardly repeat, it then builds a dictionary in vain, which takes memory, and so spills to disk.
DICTIONARY_VALUES = 20_000
THREAD_MEMORY = 270 * 2**20  # with half of it, groups in the making spill to disk

# What a file's name and folder say of its rows. As enumerations they are written several times as fast as text.
_NAMES = ("aggregate_type", "ds_nodash", "channel", "version")
_CHUNKS = pyarrow.schema([(name, pyarrow.large_string()) for name in (*_NAMES, "chunk")])

# Two strings as PostgreSQL prints them: one, and an object of nothing but strings under known keys.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])*"'
_MEMBER = rf'"(?:{"|".join(DIMENSIONS)})": {_STRING}'
_STRINGS_ONLY = rf"\{{(?:{_MEMBER}(?:, {_MEMBER})*)?\}}"

# How PostgreSQL prints an object of all keys with those strings, if none of them has to be escaped. A text that equals
# it was understood, whatever it holds: read from the left, no string can end elsewhere. That is cheap to ask, and true
# of nearly all rows; the pattern above is dear and judges only what is left.
_BETWEEN = ("{" + ", ".join(f'"{key}": "%"' for key in DIMENSIONS) + "}").split("%")
_PRINTED = "concat(" + ", ".join(f"'{text}', strings[{n}]" for n, text in enumerate(_BETWEEN[:-1], 1))
_PRINTED += f", '{_BETWEEN[-1]}')"
_PATHS = ", ".join(f"'$.{key}'" for key in DIMENSIONS)

_SOURCES = {
    **{name: name for name in (*_NAMES, "aggregate")},
    **{key: f"dimensions[{n}]" for n, key in enumerate(DIMENSIONS, 1)},
    "ingest_date": "$ingest_date::DATE",
}
_COLUMNS = ", ".join(f'{_SOURCES[column.name]} AS "{column.name}"' for column in COLUMNS)

# One backslash escapes nothing in DuckDB's strings. In each CASE the usual condition comes first: where it is true of
# all rows of a vector, DuckDB skips the others. An array has letters where it has a NULL, and begins with its bounds
# where they are not the usual ones.
_QUERY = rf"""
WITH lines AS (
    SELECT {", ".join(f"{name}::{name} AS {name}" for name in _NAMES)},
        string_split(unnest(string_split(chunk, chr(10))), chr(9)) AS fields
    FROM chunks
), texts AS (
    SELECT *, replace(nullif(fields[1], '\N'), '\\', '\') AS object,
        CASE WHEN len(fields) = 2 THEN nullif(fields[2], '\N') ELSE error('not two columns') END AS histogram
    FROM lines
), parsed AS (
    SELECT *, TRY(json_extract_string(object, [{_PATHS}])) AS strings FROM texts
), rows AS (
    SELECT {", ".join(_NAMES)},
        CASE WHEN object = {_PRINTED} THEN strings
             WHEN object IS NULL THEN NULL
             WHEN regexp_full_match(object, $strings_only) THEN strings
             ELSE exact_dimensions(object) END AS dimensions,
        CASE WHEN histogram LIKE '{{%}}' AND NOT contains(histogram, 'N')
             THEN replace(replace(histogram, '{{', '['), '}}', ']')
             WHEN histogram IS NULL THEN NULL
             WHEN regexp_full_match(histogram, $array)
             THEN translate(replace(regexp_replace(histogram, '.*=', ''), 'NULL', 'null'), '{{}}', '[]')
             ELSE error('not an array of bigint') END AS aggregate
    FROM parsed
)
SELECT {_COLUMNS} FROM rows
"""
_WRITE = f"""
COPY ({_QUERY}) TO $output (FORMAT parquet, CODEC snappy, ROW_GROUP_SIZE {ROW_GROUP_ROWS},
    ROW_GROUP_SIZE_BYTES {ROW_GROUP_BYTES}, DICTIONARY_SIZE_LIMIT {DICTIONARY_VALUES})
"""


@dataclass(frozen=True)
class ParquetFile:
    """A day's Parquet file: its rows by `channel version` as read back from it, and keys that have no column."""

    path: Path
    rows: Mapping[str, int]
    unmapped: UnmappedKeys


def write_parquet(
    archive: DayArchive,
    ingest_date: date,
    output: Path,
    expected: Mapping[str, int] | None = None,
    threads: int = os.cpu_count() or 1,
) -> ParquetFile:
    """Write all rows of an archive into one Parquet file, and read every byte of the archive on the way.

    `ingest_date` is REQUIRED there and the other columns are OPTIONAL. `expected` has the rows of each table where they
    are known. Raises DataError, naming file and place, for a file that is not whole or a row that is not as PostgreSQL
    prints one, and where a table or the Parquet file does not have the rows it should have; then there is no file.
    """
    unmapped = UnmappedKeys()
    rows_read: Counter[str] = Counter()
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": f"{threads * THREAD_MEMORY}B",
        "temp_directory": str(output.parent),
        "preserve_insertion_order": False,
    }
    try:
        with duckdb.connect(config=config) as connection:
            connection.create_function(
                "exact_dimensions", lambda text: dimension_values(text, unmapped), ["VARCHAR"], "VARCHAR[]"
            )
            names = [_names(archive, file) for file in archive.data_files]
            for name, values in zip(_NAMES, zip(*names, strict=True), strict=True):
                connection.execute(f"CREATE TYPE {name} AS ENUM (SELECT DISTINCT unnest($values))", {"values": values})
            chunks = pyarrow.RecordBatchReader.from_batches(_CHUNKS, _chunks(archive, rows_read))
            connection.register("chunks", chunks)
            connection.execute(
                _WRITE,
                {"strings_only": _STRINGS_ONLY, "array": ARRAY, "ingest_date": ingest_date, "output": str(output)},
            )
            written = ParquetFile(output, _count_rows(connection, output), unmapped)
        if expected is not None:
            check_counts(f"dump {archive.directory.name}", expected, rows_read)
        check_counts(f"{output.name} of {archive.directory.name}", rows_by_channel(rows_read), written.rows)
    except BaseException as error:
        output.unlink(missing_ok=True)
        if isinstance(error, duckdb.Error):
            raise DataError(_locate_fault(archive.data_files) or f"{archive.directory}: {error}") from error
        raise
    return written


def count_rows(path: Path) -> dict[str, int]:
    """Rows of a Parquet file by `channel version`."""
    with duckdb.connect() as connection:
        return _count_rows(connection, path)


def _count_rows(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, int]:
    groups = connection.execute(
        "SELECT channel || ' ' || version, count(*) FROM read_parquet(?) GROUP BY ALL ORDER BY ALL", [str(path)]
    ).fetchall()
    return dict(groups)


def check_day(path: Path, aggregate_type: AggregateType, day: date) -> dict[str, int]:
    """Rows of a Parquet file by `channel version`. Raises DataError unless it has our columns and rows of that day."""
    try:
        with duckdb.connect() as connection:
            file = connection.sql("SELECT * FROM read_parquet($path)", params={"path": str(path)})
            if file.columns != [column.name for column in COLUMNS]:
                raise DataError(
                    f"{path}: its columns are {', '.join(file.columns)}; `mozagg2bq to-parquet` makes other ones"
                )
            days = file.project("aggregate_type, ds_nodash").distinct().fetchall()
    except duckdb.Error as error:
        raise DataError(f"{path}: unreadable Parquet: {str(error).splitlines()[0]}") from error
    if days != [(aggregate_type, ds_nodash(day))]:
        raise DataError(f"{path}: does not hold rows of {aggregate_type} {ds_nodash(day)} only, but {days[:3]}")
    return count_rows(path)


def _names(archive: DayArchive, file: DataFile) -> tuple[str, ...]:
    return (archive.aggregate_type.value, ds_nodash(archive.day), file.table.channel, file.table.version)


def _chunks(archive: DayArchive, rows_read: Counter[str]) -> Iterator[pyarrow.RecordBatch]:
    """The text of all files, a chunk of rows at a time, with what the file's name says. Counts the rows."""
    for file in archive.data_files:
        names = [_text(name.encode()) for name in _names(archive, file)]
        for chunk in row_chunks(file.path):
            rows_read[file.table.name] += chunk.count(b"\n")
            yield pyarrow.record_batch([*names, _text(chunk[:-1])], schema=_CHUNKS)


def _text(text: bytes) -> pyarrow.LargeStringArray:
    """An array of one string. Not by `pyarrow.array`, which imports pandas. Raises ArrowInvalid unless it is UTF-8."""
    offsets = pyarrow.py_buffer(struct.pack("qq", 0, len(text)))
    array = pyarrow.LargeStringArray.from_buffers(1, offsets, pyarrow.py_buffer(text))
    array.validate(full=True)
    return array


def _locate_fault(data_files: Iterable[DataFile]) -> str | None:
    """The first row that is not as PostgreSQL prints one, in words; row by row, since DuckDB's error does not say."""
    for file in data_files:
        for number, row in enumerate(rows(file.path), 1):
            try:
                check_row(row)
            except ValueError as error:
                return f"{file.path.name}, line {number}: {error}"
    return None
