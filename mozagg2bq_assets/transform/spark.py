"""The transform on Spark: a task for each large data file or some small ones of a day, with the code that the other
engine uses, and one to merge a day.

Executors fetch and store files by themselves. Every attempt of a task stores under a name of its own, so that nothing
of one that was repeated, killed or overtaken is ever part of what the successful attempt returns.
"""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Protocol

from mozagg2bq_assets.environment import spark_config
from mozagg2bq_assets.errors import DataError, UserError, check_counts
from mozagg2bq_assets.lake.manifest import StoredFile, describe
from mozagg2bq_assets.pgdump.archive import DataFile, DayArchive
from mozagg2bq_assets.schema import SourceTable
from mozagg2bq_assets.transform.concatenate import concatenate
from mozagg2bq_assets.transform.exact import UnmappedKeys
from mozagg2bq_assets.transform.kernel import PARQUET_FILE, count_rows, write_parquet
from mozagg2bq_assets.workspace import workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OLDEST_JAVA = 17
# Of gzip data. A task costs a tenth of a second before it does anything: as long as it takes for two megabytes.
TASK_BYTES = 16 * 2**20
DOWNLOADS_AT_ONCE = 4


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
    """Parquet of some tables or of a day: where it is stored, its rows by `channel version`, keys without a column.

    `seconds` is the time that executors took for it, all tasks together.
    """

    stored: Located
    table: SourceTable
    rows: Mapping[str, int]
    unmapped: Mapping[str, Mapping[str, Any]]
    seconds: float


Converted = Part | DataError


def convert(session: "SparkSession", storage: Storage, files: Iterable[SourceFile]) -> dict[date, Converted]:
    """Turn files of any number of days into one Parquet file for each day, in one Spark job; or say what is wrong.

    Largest first: gzip cannot be entered in the middle, so the largest file decides when the job ends. Raises UserError
    for what stops Spark itself, and then no day is converted.
    """
    ordered = tasks(files)
    days = len({task[0].table.day for task in ordered})
    parts = session.sparkContext.parallelize(ordered, len(ordered)).map(partial(_convert_files, storage))
    with spark_errors():
        results = parts.groupByKey(days).mapValues(partial(_merge, storage)).collect()
    return {date.fromordinal(day): result for day, result in results}


def tasks(files: Iterable[SourceFile]) -> list[list[SourceFile]]:
    """What each task converts: files of one day, of TASK_BYTES together or the day's last ones. Largest first."""
    packed: list[list[SourceFile]] = []
    open_packs: dict[date, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.source.file.size, reverse=True):
        pack = open_packs.setdefault(file.table.day, [])
        pack.append(file)
        if _size(pack) >= TASK_BYTES:
            packed.append(open_packs.pop(file.table.day))
    return sorted([*packed, *open_packs.values()], key=_size, reverse=True)


def _size(files: Iterable[SourceFile]) -> int:
    return sum(file.source.file.size for file in files)


def session() -> "SparkSession":
    """Spark, as the environment configures it. Raises UserError where there is no Java to run it."""
    check_java()
    use_this_python()
    from pyspark.sql import SparkSession

    with spark_errors():
        return SparkSession.builder.config(map={**spark_config()}).getOrCreate()


@contextmanager
def spark_errors() -> Iterator[None]:
    """UserError with the cause in one line for what stops Spark: no executors, a lake out of their reach, no memory."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        raise UserError(f"Spark, master {spark_config()['spark.master']}: {_cause(str(error))}") from error


def _cause(message: str) -> str:
    """The last error before Java's stack: Python's, if the stack of an executor's Python is there too."""
    before_java = re.split(r"^\s+at |^(?:JVM|Driver) stacktrace:", message, maxsplit=1, flags=re.MULTILINE)[0].strip()
    errors = re.findall(r"^(?:: )?([\w.$]+(?:Error|Exception)\b.*)", before_java, re.MULTILINE)
    return str(errors[-1]) if errors else before_java.partition("\n")[0]


def use_this_python() -> None:
    """Have executors run our own Python, unless PYSPARK_PYTHON names one; Spark would take any `python3` on PATH."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


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
    started = time.monotonic()
    table, ingest_date = files[0].table, files[0].ingest_date
    expected = {file.table.name: file.rows for file in files if file.rows is not None}
    with workspace() as directory:
        try:
            data_files = [DataFile(storage.fetch(file.source, directory), file.table) for file in files]
            archive = DayArchive(directory, table.aggregate_type, table.day, ingest_date, data_files)
            written = write_parquet(archive, ingest_date, directory / PARQUET_FILE, expected or None, threads=1)
        except DataError as error:
            return table.day.toordinal(), error
        stored = _store(storage, written.path, table)
    part = Part(stored, table, written.rows, written.unmapped.as_dict(), time.monotonic() - started)
    return table.day.toordinal(), part


def _merge(storage: Storage, converted: Iterable[Converted]) -> Converted:
    """In an executor: a day's parts as one file, made of their row groups as they are."""
    started = time.monotonic()
    parts: list[Part] = []
    for each in converted:
        if isinstance(each, DataError):
            return each
        parts.append(each)
    if len(parts) == 1:
        return parts[0]
    table, rows, unmapped = parts[0].table, Counter[str](), UnmappedKeys()
    for part in parts:
        rows.update(part.rows)
        unmapped.merge(UnmappedKeys.from_dict(part.unmapped))
    with workspace() as directory:
        merged = directory / PARQUET_FILE
        try:
            with closing(_fetched(storage, parts, directory)) as paths:
                concatenate(paths, merged)
            check_counts(f"{PARQUET_FILE} of {table.day}", rows, count_rows(merged))
        except DataError as error:
            return error
        stored = _store(storage, merged, table)
    seconds = sum(part.seconds for part in parts) + time.monotonic() - started
    return Part(stored, table, dict(rows), unmapped.as_dict(), seconds)


def _store(storage: Storage, path: Path, table: SourceTable) -> Located:
    file = describe(path)
    return Located(storage.store(path, table), file)


def _fetched(storage: Storage, parts: Sequence[Part], directory: Path) -> Generator[Path, None, None]:
    """The parts, some fetched while those before them are copied; each in a folder of its own, as all have one name."""
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        yield from pool.map(lambda part: storage.fetch(part.stored, Path(mkdtemp(dir=directory))), parts)
