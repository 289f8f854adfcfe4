"""The generator that takes partitions through their stages, without Dagster."""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mozagg2bq_assets.errors import Attempt, Cancelled, DataError, TransientError
from mozagg2bq_assets.lake.manifest import DumpManifest, LoadManifest, ParquetManifest, StageManifest
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.parquet.converter import Converted, DuckDBConverter, Dump, Engine
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.cancellation import WATCH_SECONDS
from mozagg2bq_assets.postgres.dump import Dumper
from mozagg2bq_assets.postgres.pg_dump import LOCK_WAIT_SECONDS
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline
from mozagg2bq_assets_tests.helpers.wait import wait_for

PARTITIONS = [Partition(TYPE, day) for day in DAYS]
ALL = tuple(Stage)


def services(pipeline: Pipeline, folder: Path, run_id: str = "run") -> Services:
    """Everything a run needs."""
    writer = LakeWriter(pipeline.lake, Run(run_id, run_id), lambda _: False)
    return Services(writer, open_source(read_postgres()), DuckDBConverter(folder / Stage.PARQUET), pipeline.warehouse)


def run(
    pipeline: Pipeline, folder: Path, stages: Sequence[Stage] = ALL, run_id: str = "run", **changes: Any
) -> list[StageResult]:
    """All results of a run over all days."""
    return list(ingest(PARTITIONS, stages, replace(services(pipeline, folder, run_id), **changes), folder))


def test_every_stage_of_every_partition(pipeline: Pipeline, tmp_path: Path) -> None:
    """A result each, in the order of stages within a day; nothing is left on the disk."""
    results = run(pipeline, tmp_path)
    for stage in Stage:
        assert sorted(result.partition for result in results if result.stage is stage) == PARTITIONS
    for partition in PARTITIONS:
        assert [result.stage for result in results if result.partition == partition] == list(Stage)
    assert {(result.rows.total, result.error) for result in results} == {(250, None)}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert pipeline.reconcile().differences == []


def test_results_come_as_they_are_committed(pipeline: Pipeline, tmp_path: Path) -> None:
    """The first dump is told before anything is converted, also where an engine takes all dumps before it begins."""
    told = threading.Event()

    @dataclass(frozen=True)
    class AllAtOnce:
        """An engine that waits for all dumps, and then for somebody to have heard of the first."""

        inner: DuckDBConverter
        engine: Engine = Engine.spark

        def convert(self, dumps: Iterable[Dump]) -> Iterator[tuple[Partition, Attempt[Converted]]]:
            """As its name says."""
            taken = list(dumps)
            assert told.wait(60)
            yield from reversed(list(self.inner.convert(taken)))

    converter = AllAtOnce(DuckDBConverter(tmp_path / Stage.PARQUET))
    results = ingest(PARTITIONS, ALL, replace(services(pipeline, tmp_path), converter=converter), tmp_path)
    assert next(results).stage is Stage.RAW_DUMP
    told.set()
    rest = list(results)
    assert len(rest) == 8
    assert sorted(result.partition for result in rest if result.stage is Stage.PARQUET) == PARTITIONS
    assert pipeline.reconcile().differences == []


@pytest.mark.parametrize("overtaken", [DumpManifest, ParquetManifest])
def test_a_local_copy_is_used_for_its_own_version_only(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: type[StageManifest]
) -> None:
    """Another run commits a day right after ours: the next stage takes what the lake has, not this machine's copy."""
    commit = LakeWriter.commit

    def commit_and_be_overtaken(self: LakeWriter, manifest: StageManifest, paths: Sequence[Path]) -> None:
        commit(self, manifest, paths)
        if isinstance(manifest, overtaken) and self.run.run_id == "ours":
            pipeline.source.execute("INSERT INTO build_id_nightly_73_20191201 VALUES ('{\"os\": \"late\"}', '{1}')")
            theirs = tmp_path / "theirs"
            list(ingest(PARTITIONS[:1], ALL[:2], services(pipeline, theirs, "theirs"), theirs))

    monkeypatch.setattr(LakeWriter, "commit", commit_and_be_overtaken)
    results = list(ingest(PARTITIONS[:1], ALL, services(pipeline, tmp_path, "ours"), tmp_path))
    rows = [250, 251, 251] if overtaken is DumpManifest else [250, 250, 251]
    assert [(result.rows.total, result.error) for result in results] == [(total, None) for total in rows]
    assert pipeline.manifest(ParquetManifest).details.raw_dump == pipeline.manifest(DumpManifest).version
    assert pipeline.manifest(LoadManifest).details.parquet == pipeline.manifest(ParquetManifest).version
    assert pipeline.reconcile().days[0].bigquery_rows == 251


def test_leaving_early(pipeline: Pipeline, tmp_path: Path) -> None:
    """pg_dump is ended, nothing else is begun, and no session stays."""
    before = set(threading.enumerate())
    results = ingest(PARTITIONS, ALL, services(pipeline, tmp_path), tmp_path)
    next(results)
    results.close()
    loaded = [pipeline.lake.read(LoadManifest, partition) for partition in PARTITIONS]
    assert None in loaded
    assert set(threading.enumerate()) <= before
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"
    assert pipeline.source.execute(sessions).fetchone() == (0,)


def test_leaving_while_a_table_is_locked(pipeline: Pipeline, tmp_path: Path) -> None:
    """A dump that waits for a lock ends at once, long before its lock wait is over, and leaves no files."""
    cancelled = threading.Event()
    dumper = Dumper(open_source(read_postgres()), tmp_path, patience=Patience(cancelled=cancelled))
    with ThreadPoolExecutor(1) as pool, pipeline.source.transaction():
        pipeline.source.execute("LOCK TABLE build_id_nightly_73_20191202 IN ACCESS EXCLUSIVE MODE")
        dumps = pool.submit(list, dumper.dump(PARTITIONS))
        wait_for(lambda: pipeline.waiting_sessions() == 1, LOCK_WAIT_SECONDS / 2)
        cancelled.set()
        with pytest.raises(Cancelled):
            dumps.result(LOCK_WAIT_SECONDS / 2)
        assert pipeline.waiting_sessions() == 0
    assert list(tmp_path.iterdir()) == []


def test_leaving_while_pg_dump_works(pipeline: Pipeline, tmp_path: Path) -> None:
    """pg_dump is ended at its first message, and leaves neither files nor sessions."""
    cancelled = threading.Event()
    dumper = Dumper(
        open_source(read_postgres()), tmp_path, lambda _: cancel_and_wait(cancelled), Patience(cancelled=cancelled)
    )
    with pytest.raises(Cancelled):
        list(dumper.dump(PARTITIONS))
    assert list(tmp_path.iterdir()) == []
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"
    wait_for(lambda: pipeline.source.execute(sessions).fetchone() == (0,), LOCK_WAIT_SECONDS / 2)


def cancel_and_wait(cancelled: threading.Event) -> None:
    """Long enough for the watcher to see it, while pg_dump cannot go on: nobody reads its messages."""
    if not cancelled.is_set():
        cancelled.set()
        time.sleep(3 * WATCH_SECONDS)


def test_source_away(pipeline: Pipeline, tmp_path: Path) -> None:
    """What stops all partitions is raised once, after what was done before it."""
    source = replace(open_source(read_postgres()), host="127.0.0.1", port="1")
    results = ingest(PARTITIONS, ALL, replace(services(pipeline, tmp_path), source=source), tmp_path)
    with pytest.raises(TransientError, match="cannot connect to PostgreSQL"):
        next(results)


def test_service_that_is_not_given(pipeline: Pipeline, tmp_path: Path) -> None:
    """A stage without its service is a mistake of the caller."""
    with pytest.raises(ValueError, match="not there"):
        run(pipeline, tmp_path, warehouse=None)


def test_failed_day_goes_no_further(pipeline: Pipeline, tmp_path: Path) -> None:
    """It has one result with its error, and the others have all of theirs."""
    assert len(run(pipeline, tmp_path, [Stage.RAW_DUMP])) == 3
    pipeline.flip_bit(Stage.RAW_DUMP, ".dat.gz", PARTITIONS[1].day)
    results = run(pipeline, tmp_path, ALL[1:], new_version("other"))
    failed = [result for result in results if result.error is not None]
    assert [(result.partition, result.stage) for result in failed] == [(PARTITIONS[1], Stage.PARQUET)]
    assert isinstance(failed[0].error, DataError)
    assert len(results) == 5
