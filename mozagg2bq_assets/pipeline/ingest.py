"""Take partitions through their stages, and yield each stage's result as it ends.

The days of a run are dumped in parts. While one part is committed, converted and loaded, the next is dumped. Days are
converted one at a time, as a conversion takes all cores. Several days are uploaded and loaded at once, as that is
mostly waiting.

Local disk holds at most two parts of dumps, and the Parquet files that are not loaded yet. A file is removed as soon as
no stage needs it. An engine that takes all dumps before it begins, as Spark does, keeps only their lists of files.
"""

import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mozagg2bq_assets.errors import Attempt, Cancelled, DataError, OperatorError
from mozagg2bq_assets.lake.manifest import DumpManifest, ParquetManifest
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.parquet.converter import Converted, Converter, Engine
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.pipeline.dumps import CommittedDump, LocalDump
from mozagg2bq_assets.pipeline.parts import PartsOnDisk
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.side_by_side import ahead, side_by_side
from mozagg2bq_assets.pipeline.stages import LocalParquet, Stages
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.postgres.pg_dump import JOBS

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse

# A log without a line for longer looks as if nothing happened.
QUIET_SECONDS = 10.0
LISTED = 3

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Services:
    """What the stages work with. A service that no selected stage needs may be None.

    A step waits `patience_seconds` for one of them that is away. `dump_jobs` connections read the source; `in_flight`
    partitions at once are on their way to S3, and as many to BigQuery. A day that has shrunk is held back unless
    `accept_shrink`; a day without rows, of which the lake has no dump, fails until `source_grace` has passed since its
    end.
    """

    writer: LakeWriter
    source: Postgres | None = None
    converter: Converter | None = None
    warehouse: "Warehouse | None" = None
    patience_seconds: float = 0
    dump_jobs: int = JOBS
    in_flight: int = 16
    accept_shrink: bool = False
    source_grace: timedelta = timedelta(0)


def ingest(
    partitions: Sequence[Partition],
    stages: Sequence[Stage],
    services: Services,
    directory: Path,
    attempt: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] | None = None,
    look: Callable[[], None] = lambda: None,
) -> Generator[StageResult, None, None]:
    """Take partitions through some stages and yield what each stage did with each partition, as soon as it is done.

    A partition that fails at a stage goes no further and does not make others fail; a step that meets a service which
    is away is tried again before it fails. `directory` is for local files; those of a partition are
    removed at the latest when it has ended.

    Other threads tell `progress` what begins and what pg_dump says; the caller's tells it what is under way, after
    QUIET_SECONDS without a result. `warn`, or `progress` in its place, is told which service is waited for.
    Leaving the generator early ends pg_dump, waits for the steps under way and begins no other. The caller's thread
    calls `look` at each of its turns, and leaves by what that raises. Raises OperatorError for what stops all
    partitions.
    """
    cancelled = Event()
    patience = Patience(services.patience_seconds, warn or progress, cancelled)
    flow = _Flow(
        partitions,
        stages,
        services,
        directory,
        Stages(services.writer, attempt, services.accept_shrink),
        progress,
        patience,
        PartsOnDisk(cancelled),
    )
    with ThreadPoolExecutor(1, "ingest") as pool:
        work = pool.submit(flow.run)
        work.add_done_callback(lambda _: flow.results.put(None))
        try:
            while (result := flow.next_result(look)) is not None:
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
    on_disk: PartsOnDisk
    results: "SimpleQueue[StageResult | None]" = field(default_factory=SimpleQueue)
    under_way: dict[tuple[Partition, Stage], float] = field(default_factory=dict)

    def next_result(self, look: Callable[[], None]) -> StageResult | None:
        """The next result; None after the last. Says what is under way whenever there is none for QUIET_SECONDS."""
        while True:
            look()
            try:
                return self.results.get(timeout=QUIET_SECONDS)
            except Empty:
                now = time.monotonic()
                steps = [f"{p.day} {stage} ({now - begun:.0f} s)" for (p, stage), begun in list(self.under_way.items())]
                others = f" and {len(steps) - LISTED} more" if len(steps) > LISTED else ""
                self.progress(f"at work: {', '.join(steps[:LISTED]) or 'getting ready'}{others}")

    def run(self) -> None:
        """Pull all partitions through the selected stages."""
        works: Iterator[_Work] = map(_Work, self.partitions)
        with self._cancelled_by_errors():
            if Stage.RAW_DUMP in self.selected:
                works = self._done(Stage.RAW_DUMP, self._dumps(_needed(self.services.source)))
            if Stage.PARQUET in self.selected:
                works = self._done(Stage.PARQUET, self._conversions(works, _needed(self.services.converter)))
            if Stage.BIGQUERY_TABLE in self.selected:
                works = self._done(Stage.BIGQUERY_TABLE, self._loads(works, _needed(self.services.warehouse)))
            deque(works, maxlen=0)

    @contextmanager
    def _cancelled_by_errors(self) -> Iterator[None]:
        """An error ends what others wait for: room on the disk, or a service."""
        try:
            yield
        except BaseException:
            self.patience.cancelled.set()
            raise

    def _done(self, stage: Stage, steps: "Iterator[_Step]") -> Iterator[_Work]:
        """Run the steps of a stage, some at once, and pass on the partitions that did not fail."""
        works = side_by_side(partial(self._take, stage), steps, self.services.in_flight)
        return (work for work in works if work is not None)

    def _dumps(self, source: Postgres) -> "Iterator[_Step]":
        """Days that were committed by a run which this one continues are not dumped again."""
        resume = partial(self._patiently, self.stages.resumed_dump)
        missing = []
        for partition, result in side_by_side(resume, iter(self.partitions), self.services.in_flight):
            if result is None:
                missing.append(partition)
            else:
                yield partition, partial(_pass_on, result, _Work(partition))
        if missing:
            folder = self.directory / Stage.RAW_DUMP
            dumper = Dumper(source, folder, self.progress, self.patience, self.services.dump_jobs)
            for part in dumper.parts(missing):
                self.on_disk.enter(part)
                self._begin(Stage.RAW_DUMP, *part)
                for partition, dump in dumper.dump_part(part):
                    yield (
                        partition,
                        dump if isinstance(dump, OperatorError) else partial(self._commit_dump, partition, dump),
                    )

    def _patiently(self, step: Callable[[Partition], Made], partition: Partition) -> tuple[Partition, Made]:
        return partition, self.patience.call(partial(step, partition))

    def _commit_dump(self, partition: Partition, dump: PartitionDump | None) -> tuple[StageResult, _Work]:
        if dump is None or not dump.rows.total:
            return self._without_rows(partition), _Work(partition)
        if (kept := self.stages.kept_dump(dump)) is not None:
            return kept, _Work(partition)
        result, manifest = self.stages.commit_dump(dump)
        return result, _Work(partition, LocalDump(manifest.version, dump.archive))

    def _without_rows(self, partition: Partition) -> StageResult:
        """What the lake has stays as it is. Raises DataError for a day that has nothing yet, and may still come."""
        grace = self.services.source_grace
        if (
            datetime.now(UTC) - partition.ends_at < grace
            and self.services.writer.lake.read(DumpManifest, partition) is None
        ):
            hours = grace.total_seconds() / 3600
            raise DataError(
                f"the source has no rows of this day yet: it is tried again by the schedule, and counts as empty"
                f" {hours:g} hours after its end (SOURCE_GRACE_HOURS)"
            )
        return self.stages.without_input(DumpManifest, partition, "the source has no rows of this day")

    def _conversions(self, works: Iterator[_Work], converter: Converter) -> "Iterator[_Step]":
        """Convert what has to be, and yield what is left to do for each partition, in the order of the conversions."""
        others: deque[_Step] = deque()
        dumps: dict[Partition, CommittedDump] = {}

        def to_convert() -> Generator[CommittedDump, None, None]:
            for work in ahead(works):
                try:
                    dump = self.patience.call(partial(self._dump_to_convert, work))
                except OperatorError as error:
                    others.append((work.partition, error))
                    continue
                if isinstance(dump, StageResult):
                    others.append((work.partition, partial(_pass_on, dump, work)))
                else:
                    dumps[work.partition] = dump
                    self._begin(Stage.PARQUET, work.partition)
                    yield dump
                    # The engine has converted it, or knows where its executors find it.
                    self._remove(Stage.RAW_DUMP, work.partition)

        # By a name, as Python would close what has none before the error is handled, and wait for the next part, which
        # waits for room on the disk.
        with closing(to_convert()) as source, self._cancelled_by_errors():
            for partition, outcome in converter.convert(source):
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
        result, manifest = self.stages.commit_parquet(dump.manifest, converted, engine)
        local = LocalParquet(manifest.version, converted.path) if isinstance(converted, ParquetFile) else None
        return result, _Work(dump.partition, parquet=local)

    def _loads(self, works: Iterator[_Work], warehouse: "Warehouse") -> "Iterator[_Step]":
        for work in works:
            yield work.partition, partial(self._load, work, warehouse)

    def _load(self, work: _Work, warehouse: "Warehouse") -> tuple[StageResult, _Work]:
        self._begin(Stage.BIGQUERY_TABLE, work.partition)
        folder = self._folder(Stage.BIGQUERY_TABLE, work.partition)
        return self.stages.load(warehouse, work.partition, work.parquet, folder), work

    def _take(self, stage: Stage, step: "_Step") -> _Work | None:
        """Take a step and report what it did; None where it failed."""
        partition, action = step
        with self._cancelled_by_errors():
            try:
                if isinstance(action, OperatorError):
                    raise action
                result, work = self.patience.call(action)
            except OperatorError as error:
                self._report(StageResult(partition, stage, error=error))
                return None
        self._report(result)
        return work

    def _begin(self, stage: Stage, *partitions: Partition) -> None:
        """Say that a step of one or more partitions begins, unless it is only tried again."""
        if new := [each for each in partitions if (each, stage) not in self.under_way]:
            self.under_way.update(dict.fromkeys(((each, stage) for each in new), time.monotonic()))
            last = f" to {new[-1].day}" if len(new) > 1 else ""
            self.progress(f"{new[0].day}{last} {stage}: begins")

    def _report(self, result: StageResult) -> None:
        self.under_way.pop((result.partition, result.stage), None)
        if result.error is not None or result.stage == self.selected[-1]:
            for stage in Stage:
                self._remove(stage, result.partition)
        self.results.put(result)
        if self.patience.cancelled.is_set():
            raise Cancelled

    def _remove(self, stage: Stage, partition: Partition) -> None:
        shutil.rmtree(self._folder(stage, partition), ignore_errors=True)
        if stage is Stage.RAW_DUMP:
            self.on_disk.leave(partition)

    def _folder(self, stage: Stage, partition: Partition) -> Path:
        return self.directory / stage / partition.path


# What a stage has to do for one partition: its result, and what the next stage gets.
_Step: TypeAlias = tuple[Partition, Attempt[Callable[[], tuple[StageResult, _Work]]]]


def _pass_on(result: StageResult, work: _Work) -> tuple[StageResult, _Work]:
    return result, work


def _drained(items: deque[Item]) -> Iterator[Item]:
    while items:
        yield items.popleft()


def _needed(service: Item | None) -> Item:
    if service is None:
        raise ValueError("a service that a selected stage needs is not there")
    return service
