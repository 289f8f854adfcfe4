"""COPY text to Parquet, in one DuckDB query over all files given.

DuckDB reads, splits, unescapes and parses; what it would read differently from PostgreSQL goes through `exact`. Nothing
is held but the row groups being written, whatever the size of the day.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb

from mozagg2bq_assets.errors import DataError, check_counts
from mozagg2bq_assets.pgdump.archive import DataFile, DayArchive
from mozagg2bq_assets.pgdump.copytext import CHUNK, lines
from mozagg2bq_assets.schema import COLUMNS, DIMENSIONS, AggregateType, ds_nodash
from mozagg2bq_assets.transform.exact import ARRAY, UnmappedKeys, check_row, dimension_values

PARQUET_FILE = "aggregates.parquet"

# Half a million rows make a row group of 16 MiB and more; rows of a megabyte end a group by its size instead.
ROW_GROUP_ROWS = 491_520
ROW_GROUP_BYTES = 128 * 2**20
# Distinct values of a column in a group, beyond which DuckDB gives up its dictionary. Its own default is a fifth of the
# rows: for arrays, which hardly repeat, it then builds a dictionary in vain, which takes memory, and so spills to disk.
DICTIONARY_VALUES = 20_000
THREAD_MEMORY = 270 * 2**20  # what two such groups in the making need

# Two strings as PostgreSQL prints them: one, and an object of nothing but strings under known keys.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])*"'
_MEMBER = rf'"(?:{"|".join(DIMENSIONS)})": {_STRING}'
_REGULAR = rf"\{{(?:{_MEMBER}(?:, {_MEMBER})*)?\}}"

# Bytes of an object with every key and no value. Where a text has just these and its values' own bytes, and no value
# that is not a string (`": ` and then no quote), there is neither an escape nor another key in it. That is cheap to
# ask; the pattern above is dear and judges only what is left.
_EMPTY_BYTES = len("{" + ", ".join(f'"{key}": ""' for key in DIMENSIONS) + "}")
_VALUE_BYTES = " + ".join(f"strlen(strings[{n}])" for n in range(1, len(DIMENSIONS) + 1))
_PATHS = ", ".join(f"'$.{key}'" for key in DIMENSIONS)

_SOURCES = {
    **{name: name for name in ("aggregate_type", "ds_nodash", "channel", "version", "aggregate")},
    **{key: f"dimensions[{n}]" for n, key in enumerate(DIMENSIONS, 1)},
    "ingest_date": "$ingest_date::DATE",
}
_COLUMNS = ", ".join(f'{_SOURCES[column.name]} AS "{column.name}"' for column in COLUMNS)

# One backslash escapes nothing in DuckDB's strings. A line of only the end marker is padded with a NULL; every other
# line has two columns, as `copytext.scan` saw.
_QUERY = rf"""
WITH lines AS (
    SELECT filename, histogram, replace(dimensions, '\\', '\') AS object, object ~ '": [^"]' AS not_all_strings
    FROM read_csv($files, columns = {{'dimensions': 'VARCHAR', 'histogram': 'VARCHAR'}}, auto_detect = false,
        header = false, delim = '\t', quote = '', escape = '', comment = '', nullstr = '\N', new_line = '\n',
        max_line_size = $line_limit, null_padding = true, filename = true)
    WHERE dimensions IS DISTINCT FROM '\.'
), parsed AS (
    SELECT *, CASE WHEN NOT not_all_strings THEN json_extract_string(object, [{_PATHS}]) END AS strings FROM lines
), rows AS (
    SELECT filename,
        CASE WHEN object IS NULL THEN NULL
             WHEN strlen(object) = {_VALUE_BYTES} + {_EMPTY_BYTES} THEN strings
             WHEN NOT not_all_strings AND regexp_full_match(object, $regular) THEN strings
             ELSE exact_dimensions(object) END AS dimensions,
        CASE WHEN histogram IS NULL THEN NULL
             WHEN regexp_full_match(histogram, '\{{[-0-9,]*\}}') THEN '[' || histogram[2:-2] || ']'
             WHEN regexp_full_match(histogram, $array)
             THEN translate(replace(regexp_replace(histogram, '.*=', ''), 'NULL', 'null'), '{{}}', '[]')
             ELSE error('not an array of bigint') END AS aggregate
    FROM parsed
)
SELECT {_COLUMNS} FROM rows JOIN files USING (filename)
"""
_WRITE = f"""
COPY ({_QUERY}) TO $output (FORMAT parquet, CODEC snappy, ROW_GROUP_SIZE {ROW_GROUP_ROWS},
    ROW_GROUP_SIZE_BYTES {ROW_GROUP_BYTES}, DICTIONARY_SIZE_LIMIT {DICTIONARY_VALUES})
"""


@dataclass(frozen=True)
class ParquetFile:
    """A day's Parquet file: its rows by `channel version` as read back from it, and keys that have no column."""

    path: Path
    rows: dict[str, int]
    unmapped: UnmappedKeys


def write_parquet(
    archive: DayArchive, ingest_date: date, output: Path, threads: int = os.cpu_count() or 1
) -> ParquetFile:
    """Write all rows of an archive that `open_day` found whole into one Parquet file.

    `ingest_date` is REQUIRED there and the other columns are OPTIONAL. Raises DataError, naming file and line, for a
    row that is not as PostgreSQL prints one, and where the file's rows are not the archive's; then there is no file.
    """
    unmapped = UnmappedKeys()
    try:
        with duckdb.connect(config=_config(archive, output.parent, threads)) as connection:
            connection.create_function(
                "exact_dimensions", lambda text: dimension_values(text, unmapped), ["VARCHAR"], "VARCHAR[]"
            )
            _create_files(connection, archive)
            connection.execute(_WRITE, {**_parameters(archive.data_files, ingest_date), "output": str(output)})
        written = ParquetFile(output, count_rows(output), unmapped)
        check_counts(f"{output.name} of {archive.directory.name}", rows_by_channel(archive.data_files), written.rows)
    except BaseException as error:
        output.unlink(missing_ok=True)
        if isinstance(error, duckdb.Error):
            raise DataError(_locate_fault(archive.data_files) or f"{archive.directory}: {error}") from error
        raise
    return written


def count_rows(path: Path) -> dict[str, int]:
    """Rows of a Parquet file by `channel version`."""
    with duckdb.connect() as connection:
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


def rows_by_channel(data_files: Iterable[DataFile]) -> dict[str, int]:
    """Rows of an archive's tables by `channel version`, which build ids with a time share."""
    rows: dict[str, int] = {}
    for file in data_files:
        key = f"{file.table.channel} {file.table.version}"
        rows[key] = rows.get(key, 0) + file.scan.rows
    return rows


def _create_files(connection: duckdb.DuckDBPyConnection, archive: DayArchive) -> None:
    """The table that says for each file what its name does.

    The row of NULLs belongs to no file. It is there since DuckDB makes REQUIRED what it can prove is never NULL.
    """
    connection.execute(
        "CREATE TABLE files (filename TEXT, aggregate_type TEXT, ds_nodash TEXT, channel TEXT, version TEXT)"
    )
    connection.execute("INSERT INTO files DEFAULT VALUES")
    connection.executemany(
        "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
        [
            (
                str(file.path),
                archive.aggregate_type.value,
                ds_nodash(archive.day),
                file.table.channel,
                file.table.version,
            )
            for file in archive.data_files
        ],
    )


def _config(archive: DayArchive, temp_directory: Path, threads: int) -> dict[str, str | bool | int | float | list[str]]:
    # The reader holds 16 lines' worth of buffer for each thread, which matters where lines are longer than usual.
    memory = threads * (THREAD_MEMORY + 32 * (_line_limit(archive.data_files) - 2 * CHUNK))
    return {
        "threads": threads,
        "memory_limit": f"{memory}B",
        "temp_directory": str(temp_directory),
        "preserve_insertion_order": False,
    }


def _line_limit(data_files: Iterable[DataFile]) -> int:
    return max((2 * CHUNK, *(file.scan.line_limit for file in data_files)))


def _parameters(data_files: Sequence[DataFile], ingest_date: date) -> dict[str, object]:
    return {
        "files": [str(file.path) for file in data_files],
        "line_limit": _line_limit(data_files),
        "regular": _REGULAR,
        "array": ARRAY,
        "ingest_date": ingest_date,
    }


def _locate_fault(data_files: Iterable[DataFile]) -> str | None:
    """The first row that is not as PostgreSQL prints one, in words; row by row, since DuckDB's error does not say."""
    for file in data_files:
        for number, line in enumerate(lines(file.path), 1):
            try:
                check_row(line)
            except ValueError as error:
                return f"{file.path.name}, line {number}: {error}"
    return None
