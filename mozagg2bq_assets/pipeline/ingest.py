"""Partitions through their stages, one result at a time.

The stages run side by side: while one partition is loaded, the next is committed, the one after it converted, and
another dumped or uploaded. Between two stages waits one partition, so memory does not grow with a run. On disk are the
days of one pg_dump; an engine that takes all dumps before it begins, as Spark does, holds their lists.
"""

import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mozagg2bq_assets.errors import Attempt, Cancelled, OperatorError
from mozagg2bq_assets.lake.manifest import DumpManifest, ParquetManifest
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.parquet.converter import Converted, Converter, Engine
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.pipeline.dumps import CommittedDump, LocalDump
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.stages import LocalParquet, Stages
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse

Item = TypeVar("Item")


@dataclass(frozen=True)
class Services:
    """What the stages work with, and seconds that a step waits for one of them that is away.

    A service that no selected stage needs may be None.
    """

    writer: LakeWriter
    source: Postgres | None = None
    converter: Converter | None = None
    warehouse: "Warehouse | None" = None
    patience_seconds: float = 0


def ingest(
    partitions: Sequence[Partition],
    stages: Sequence[Stage],
    services: Services,
    directory: Path,
    attempt: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Generator[StageResult, None, None]:
    """Take partitions through some stages and yield what each stage did with each partition, as soon as it is done.

    A partition that fails at a stage goes no further and costs no other; a step that meets a service which is away is
    tried again before it fails. `directory` is for local files, which go with their partition. `progress` is told, in
    another thread, what pg_dump says and what is waited for. Leaving the generator early ends pg_dump, waits for the
    steps under way and begins no other. Raises OperatorError for what stops all partitions.
    """
    cancelled = Event()
    patience = Patience(services.patience_seconds, progress, cancelled)
    flow = _Flow(partitions, stages, services, directory, Stages(services.writer, attempt), progress, patience)
    with ThreadPoolExecutor(1, "ingest") as pool:
        work = pool.submit(flow.run)
        work.add_done_callback(lambda _: flow.results.put(None))
        try:
            while (result := flow.results.get()) is not None:
                yield result
            work.result()
        finally:
            cancelled.set()


@dataclass(frozen=True)
class _Work:
    """A partition between two stages, with this machine's copies of what it has made so far."""

    partition: Partition
    dump: LocalDump | None = None
    parquet: LocalParquet | None = None


@dataclass(frozen=True)
class _Flow:
    """The stages, each a generator over what the one before it yields, and the results on their way to the caller."""

    partitions: Sequence[Partition]
    selected: Sequence[Stage]
    services: Services
    directory: Path
    stages: Stages
    progress: Callable[[str], None]
    patience: Patience
    results: "SimpleQueue[StageResult | None]" = field(default_factory=SimpleQueue)

    def run(self) -> None:
        """Pull all partitions through the selected stages."""
        works: Iterator[_Work] = map(_Work, self.partitions)
        try:
            if Stage.RAW_DUMP in self.selected:
                works = _ahead(self._dump(_needed(self.services.source)))
            if Stage.PARQUET in self.selected:
                works = self._convert(works, _needed(self.services.converter))
            if Stage.BIGQUERY_TABLE in self.selected:
                works = self._load(_ahead(works), _needed(self.services.warehouse))
            deque(works, maxlen=0)
        except BaseException:
            self.patience.cancelled.set()
            raise

    def _dump(self, source: Postgres) -> Iterator[_Work]:
        """Dump and commit; what a run that this one continues has committed is not dumped again."""
        resumed = {
            partition: self.patience.call(partial(self.stages.resumed_dump, partition)) for partition in self.partitions
        }
        missing = [partition for partition, result in resumed.items() if result is None]
        dumper = Dumper(source, self.directory / Stage.RAW_DUMP, self.progress, self.patience)
        dumps = dumper.dump(missing) if missing else iter(())
        for partition, result in resumed.items():
            if result is not None:
                self._report(result)
                yield _Work(partition)
            else:
                _, dump = next(dumps)
                commit = dump if isinstance(dump, OperatorError) else partial(self._commit_dump, partition, dump)
                yield from self._step(partition, Stage.RAW_DUMP, commit)

    def _commit_dump(self, partition: Partition, dump: PartitionDump | None) -> tuple[StageResult, _Work]:
        if dump is None or not dump.rows.total:
            reason = "the source has no rows of this day"
            return self.stages.without_input(DumpManifest, partition, reason), _Work(partition)
        result, manifest = self.stages.commit_dump(dump)
        return result, _Work(partition, LocalDump(manifest.version, dump.archive))

    def _convert(self, works: Iterator[_Work], converter: Converter) -> Iterator[_Work]:
        """Convert and commit; while one file is committed, the next is being made."""
        for partition, commit in _ahead(self._converted(works, converter)):
            yield from self._step(partition, Stage.PARQUET, commit)

    def _converted(self, works: Iterator[_Work], converter: Converter) -> Iterator[tuple[Partition, Attempt["_Step"]]]:
        """Convert what has to be, and yield what is left to do for each partition, in the order of the conversions."""
        others: deque[tuple[Partition, Attempt[_Step]]] = deque()
        dumps: dict[Partition, CommittedDump] = {}

        def to_convert() -> Iterator[CommittedDump]:
            for work in works:
                try:
                    dump = self.patience.call(partial(self._dump_to_convert, work))
                except OperatorError as error:
                    others.append((work.partition, error))
                    continue
                if isinstance(dump, StageResult):
                    others.append((work.partition, partial(_pass_on, dump, work)))
                else:
                    dumps[work.partition] = dump
                    yield dump

        for partition, outcome in converter.convert(to_convert()):
            yield from _drained(others)
            dump = dumps.pop(partition)
            commit = partial(self._commit_parquet, dump, engine=converter.engine)
            yield partition, outcome if isinstance(outcome, OperatorError) else partial(commit, outcome)
        yield from _drained(others)

    def _dump_to_convert(self, work: _Work) -> CommittedDump | StageResult:
        """The committed dump, or the result where there is none or a run that this one continues has converted it."""
        partition, lake = work.partition, self.services.writer.lake
        manifest = lake.read(DumpManifest, partition)
        if manifest is None:
            return self.stages.without_input(ParquetManifest, partition, "the lake has no dump of this day")
        dump = CommittedDump(lake, manifest, self._folder(Stage.RAW_DUMP, partition), self.patience, work.dump)
        return self.stages.resumed_parquet(manifest) or dump

    def _commit_parquet(self, dump: CommittedDump, converted: Converted, engine: Engine) -> tuple[StageResult, _Work]:
        shutil.rmtree(dump.directory, ignore_errors=True)
        result, manifest = self.stages.commit_parquet(dump.manifest, converted, engine)
        local = LocalParquet(manifest.version, converted.path) if isinstance(converted, ParquetFile) else None
        return result, _Work(dump.partition, parquet=local)

    def _load(self, works: Iterator[_Work], warehouse: "Warehouse") -> Iterator[_Work]:
        for work in works:
            yield from self._step(work.partition, Stage.BIGQUERY_TABLE, partial(self._load_one, work, warehouse))

    def _load_one(self, work: _Work, warehouse: "Warehouse") -> tuple[StageResult, _Work]:
        folder = self._folder(Stage.BIGQUERY_TABLE, work.partition)
        return self.stages.load(warehouse, work.partition, work.parquet, folder), work

    def _step(self, partition: Partition, stage: Stage, step: Attempt["_Step"]) -> Iterator[_Work]:
        """Do it and report what it did; gives the partition on to the next stage, unless it failed."""
        try:
            if isinstance(step, OperatorError):
                raise step
            result, work = self.patience.call(step)
        except OperatorError as error:
            self._report(StageResult(partition, stage, error=error))
        else:
            self._report(result)
            yield work

    def _report(self, result: StageResult) -> None:
        if result.error is not None or result.stage == self.selected[-1]:
            for stage in Stage:
                shutil.rmtree(self._folder(stage, result.partition), ignore_errors=True)
        self.results.put(result)
        if self.patience.cancelled.is_set():
            raise Cancelled

    def _folder(self, stage: Stage, partition: Partition) -> Path:
        return self.directory / stage / partition.path


# What a stage has to do for one partition: its result, and what the next stage gets.
_Step: TypeAlias = Callable[[], tuple[StageResult, _Work]]


def _pass_on(result: StageResult, work: _Work) -> tuple[StageResult, _Work]:
    return result, work


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is used, the next is made in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def _drained(items: deque[Item]) -> Iterator[Item]:
    while items:
        yield items.popleft()


def _needed(service: Item | None) -> Item:
    if service is None:
        raise ValueError("a service that a selected stage needs is not there")
    return service
