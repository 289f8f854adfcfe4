"""The transform on Spark: a task for each large data file or some small ones of a day, with the code that the other
engine uses, and one to merge a day.

Executors fetch and store files by themselves. Every attempt of a task stores under a name of its own, so that nothing
of one that was repeated, killed or overtaken is ever part of what the successful attempt returns.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any, Protocol

from mozagg2bq_assets.environment import spark_config
from mozagg2bq_assets.errors import DataError, UserError, check_counts
from mozagg2bq_assets.lake.manifest import StoredFile, describe
from mozagg2bq_assets.pgdump.archive import DataFile, DayArchive
from mozagg2bq_assets.schema import SourceTable
from mozagg2bq_assets.transform.concatenate import concatenate
from mozagg2bq_assets.transform.exact import UnmappedKeys
from mozagg2bq_assets.transform.kernel import PARQUET_FILE, count_rows, write_parquet

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
# Of gzip data. A task costs a tenth of a second before it does anything: as long as it takes for two megabytes.
TASK_BYTES = 16 * 2**20
FETCHES = 4


@dataclass(frozen=True)
class Located:
    """A file and where it is stored."""

    location: str
    file: StoredFile


class Storage(Protocol):
    """Where tasks find files and leave them."""

    def fetch(self, located: Located, directory: Path) -> Path:
        """The file, on this machine's disk. Raises DataError unless it is there and unchanged."""

    def store(self, path: Path, table: SourceTable) -> str:
        """Store a file of the table's day under a name that nobody else has, and return where."""


@dataclass(frozen=True)
class SourceFile:
    """A table's data file, with the rows it should have; None where nobody has counted them."""

    source: Located
    table: SourceTable
    rows: int | None
    ingest_date: date


@dataclass(frozen=True)
class Part:
    """Parquet of some tables or of a day: where it is stored, its rows by `channel version`, keys without a column."""

    stored: Located
    table: SourceTable
    rows: Mapping[str, int]
    unmapped: Mapping[str, Mapping[str, Any]]


Converted = Part | DataError


def convert(session: "SparkSession", storage: Storage, files: Iterable[SourceFile]) -> dict[date, Converted]:
    """Turn files of any number of days into one Parquet file for each day, in one Spark job; or say what is wrong.

    Largest first: gzip cannot be entered in the middle, so the largest file decides when the job ends.
    """
    tasks = sorted(_packed(files), key=_size, reverse=True)
    if not tasks:
        return {}
    days = len({task[0].table.day for task in tasks})
    parts = session.sparkContext.parallelize(tasks, len(tasks)).map(partial(_convert_files, storage)).groupByKey(days)
    return {date.fromordinal(day): result for day, result in parts.mapValues(partial(_merge, storage)).collect()}


def _packed(files: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
    """Files of one day for each task."""
    by_day: dict[date, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.source.file.size, reverse=True):
        pack = by_day.setdefault(file.table.day, [])
        pack.append(file)
        if _size(pack) >= TASK_BYTES:
            yield by_day.pop(file.table.day)
    yield from by_day.values()


def _size(files: Iterable[SourceFile]) -> int:
    return sum(file.source.file.size for file in files)


def session() -> "SparkSession":
    """Spark, as the environment configures it. Raises UserError where there is no Java to run it."""
    check_java()
    from pyspark.sql import SparkSession

    return SparkSession.builder.config(map={**spark_config()}).getOrCreate()


def check_java() -> None:
    """Raise UserError unless `java` is a runtime that Spark can use."""
    advice = f"Spark needs a JDK {OLDEST_JAVA} or newer: install one (Debian: openjdk-{OLDEST_JAVA}-jdk-headless)"
    try:
        result = subprocess.run((_java(), "-version"), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"no Java found; {advice}, or set JAVA_HOME") from None
    version = re.search(r'version "(?:1\.)?(\d+)', result.stderr)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise UserError(f"Java is too old ({result.stderr.splitlines()[0]}); {advice}, or set JAVA_HOME")


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def _convert_files(storage: Storage, files: Sequence[SourceFile]) -> tuple[int, Converted]:
    """In an executor: some tables' rows as Parquet. Damage is a result and no failure, as repetition mends none."""
    table, ingest_date = files[0].table, files[0].ingest_date
    expected = {file.table.name: file.rows for file in files if file.rows is not None}
    with TemporaryDirectory() as name:
        directory = Path(name)
        try:
            data_files = [DataFile(storage.fetch(file.source, directory), file.table) for file in files]
            archive = DayArchive(directory, table.aggregate_type, table.day, ingest_date, data_files)
            written = write_parquet(archive, ingest_date, directory / PARQUET_FILE, expected or None, threads=1)
        except DataError as error:
            return table.day.toordinal(), DataError(str(error))
        return table.day.toordinal(), _stored(storage, written.path, table, written.rows, written.unmapped)


def _merge(storage: Storage, converted: Iterable[Converted]) -> Converted:
    """In an executor: a day's parts as one file, whose row groups are theirs."""
    parts: list[Part] = []
    for each in converted:
        if isinstance(each, DataError):
            return each
        parts.append(each)
    if len(parts) == 1:
        return parts[0]
    rows: dict[str, int] = {}
    unmapped = UnmappedKeys()
    for part in parts:
        for name, count in part.rows.items():
            rows[name] = rows.get(name, 0) + count
        unmapped.merge(UnmappedKeys.from_dict(part.unmapped))
    with TemporaryDirectory() as name:
        directory = Path(name)
        merged = directory / PARQUET_FILE
        try:
            concatenate(_fetched(storage, parts, directory), merged)
            check_counts(f"{PARQUET_FILE} of {parts[0].table.day}", rows, count_rows(merged))
        except DataError as error:
            return DataError(str(error))
        return _stored(storage, merged, parts[0].table, rows, unmapped)


def _stored(storage: Storage, path: Path, table: SourceTable, rows: Mapping[str, int], unmapped: UnmappedKeys) -> Part:
    file = describe(path)
    return Part(Located(storage.store(path, table), file), table, rows, unmapped.as_dict())


def _fetched(storage: Storage, parts: Sequence[Part], directory: Path) -> Iterator[Path]:
    """The parts, some fetched while those before them are copied."""
    with ThreadPoolExecutor(FETCHES) as pool:
        yield from pool.map(lambda part: storage.fetch(part.stored, Path(mkdtemp(dir=directory))), parts)
