"""The job: a task for each large data file or some small ones of a partition, and one to merge a partition.

Tasks run the code of the default engine. Executors fetch and store files by themselves. Every attempt of a task stores
under a name of its own, so the successful attempt never returns anything that another one, killed or slower, has
stored.
"""

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Protocol, TypeAlias

from mozagg2bq_assets.errors import Attempt, DataError, OperatorError
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts, UnmappedKeys, check_counts
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.parquet.concatenate import concatenate
from mozagg2bq_assets.parquet.converter import Converted, Dump, Engine, FileReference, SourceFile
from mozagg2bq_assets.parquet.reader import count_channels
from mozagg2bq_assets.parquet.writer import PARQUET_FILE, write_parquet
from mozagg2bq_assets.postgres.archive import DataFile, PartitionArchive
from mozagg2bq_assets.scratch import scratch_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Of gzip data. A task costs a tenth of a second before it does anything: as long as converting two megabytes.
TASK_BYTES = 16 * 2**20
DOWNLOADS_AT_ONCE = 4


@dataclass(frozen=True)
class TaskOutput:
    """Parquet of some tables of a partition, or of all: where it is stored, and what is in it.

    `seconds` is the time that executors took for it, all tasks together.
    """

    stored: FileReference
    partition: Partition
    rows: ChannelCounts
    unmapped: UnmappedKeys
    seconds: float


class Storage(Protocol):
    """Where tasks find files and leave them."""

    def fetch(self, reference: FileReference, directory: Path) -> Path:
        """The file, on this machine's disk. Raises DataError unless it is there and unchanged."""

    def store(self, path: Path, partition: Partition) -> str:
        """Store a file of that partition under a name that nobody else has, and return where."""

    def as_converted(self, output: TaskOutput) -> Converted:
        """What a partition's last task has stored, as every engine's callers take it."""


# The partition's number among those of the job, with what was made of it.
Numbered: TypeAlias = tuple[int, Attempt[TaskOutput]]


@dataclass(frozen=True)
class SparkConverter:
    """All dumps in one job.

    `start` gives a session that stops when its block ends, so that others can use the executors.
    """

    start: "Callable[[], AbstractContextManager[SparkSession]]"
    storage: Storage
    engine: Engine = Engine.spark

    def convert(self, dumps: Iterable[Dump]) -> Iterator[tuple[Partition, Attempt[Converted]]]:
        """As `Converter` says, after all dumps are there. Raises UserError for what stops Spark itself."""
        files: list[SourceFile] = []
        for dump in dumps:
            try:
                files += dump.files()
            except OperatorError as error:
                yield dump.partition, error
        if files:
            with self.start() as session:
                outputs = run_job(session, self.storage, files)
            for partition, output in outputs.items():
                yield (
                    partition, output if isinstance(output, OperatorError) else self.storage.as_converted(output)
                )  # fmt: skip


def run_job(
    session: "SparkSession", storage: Storage, files: Iterable[SourceFile]
) -> dict[Partition, Attempt[TaskOutput]]:
    """Turn files of any number of partitions into one Parquet file for each; or say what is wrong with it.

    Largest first: gzip cannot be entered in the middle, so the largest file decides when the job ends. Raises UserError
    for what stops Spark itself, and then no partition is converted.
    """
    # Only here: executors import this module, and need no part of Spark for their tasks.
    from mozagg2bq_assets.spark.session import spark_errors

    ordered = tasks(files)
    partitions = sorted({Partition.of(task[0].table) for task in ordered})
    numbers = {partition: number for number, partition in enumerate(partitions)}
    numbered = [(numbers[Partition.of(task[0].table)], task) for task in ordered]
    parts = session.sparkContext.parallelize(numbered, len(numbered)).map(partial(_convert_files, storage))
    with spark_errors(str(session.sparkContext.master)):
        results = parts.groupByKey(len(partitions)).mapValues(partial(_merge, storage)).collect()
    return {partitions[number]: result for number, result in results}


def tasks(files: Iterable[SourceFile]) -> list[list[SourceFile]]:
    """What each task converts, largest first: files of one partition, TASK_BYTES together or what is left over."""
    packed: list[list[SourceFile]] = []
    open_packs: dict[Partition, list[SourceFile]] = {}
    for file in sorted(files, key=lambda file: file.source.file.size, reverse=True):
        partition = Partition.of(file.table)
        pack = open_packs.setdefault(partition, [])
        pack.append(file)
        if _size(pack) >= TASK_BYTES:
            packed.append(open_packs.pop(partition))
    return sorted([*packed, *open_packs.values()], key=_size, reverse=True)


def _size(files: Iterable[SourceFile]) -> int:
    return sum(file.source.file.size for file in files)


def _convert_files(storage: Storage, task: tuple[int, Sequence[SourceFile]]) -> Numbered:
    """In an executor: some tables' rows as Parquet. Damage is a result, as a task that is repeated meets it again."""
    started = time.monotonic()
    number, files = task
    partition, ingest_date = Partition.of(files[0].table), files[0].ingest_date
    expected = TableCounts({file.table.name: file.rows for file in files if file.rows is not None})
    with scratch_folder() as directory:
        try:
            data_files = [DataFile(storage.fetch(file.source, directory), file.table, file.columns) for file in files]
            archive = PartitionArchive(directory, partition, ingest_date, data_files)
            written = write_parquet(archive, ingest_date, directory / PARQUET_FILE, expected or None, threads=1)
        except DataError as error:
            return number, error
        stored = _store(storage, written.path, partition)
    return number, TaskOutput(stored, partition, written.rows, written.unmapped, time.monotonic() - started)


def _merge(storage: Storage, outputs: Iterable[Attempt[TaskOutput]]) -> Attempt[TaskOutput]:
    """In an executor: a partition's files as one, made of their row groups as they are."""
    started = time.monotonic()
    parts: list[TaskOutput] = []
    for output in outputs:
        if isinstance(output, OperatorError):
            return output
        parts.append(output)
    if len(parts) == 1:
        return parts[0]
    partition, counter, unmapped = parts[0].partition, Counter[str](), UnmappedKeys()
    for part in parts:
        counter.update(part.rows)
        unmapped.merge(part.unmapped)
    rows = ChannelCounts(counter)
    with scratch_folder() as directory:
        merged = directory / PARQUET_FILE
        try:
            with closing(_fetched(storage, parts, directory)) as paths:
                concatenate(paths, merged)
            check_counts(f"{PARQUET_FILE} of {partition.day}", rows, count_channels(merged))
        except DataError as error:
            return error
        stored = _store(storage, merged, partition)
    seconds = sum(part.seconds for part in parts) + time.monotonic() - started
    return TaskOutput(stored, partition, rows, unmapped, seconds)


def _store(storage: Storage, path: Path, partition: Partition) -> FileReference:
    file = describe(path)
    return FileReference(storage.store(path, partition), file)


def _fetched(storage: Storage, parts: Sequence[TaskOutput], directory: Path) -> Generator[Path, None, None]:
    """The parts, some fetched while those before them are copied; each in a folder of its own, as all have one name."""
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        yield from pool.map(lambda part: storage.fetch(part.stored, Path(mkdtemp(dir=directory))), parts)
