"""A run's process is killed at random moments of a backfill, or does not hear that it is to end."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from tempfile import gettempdir

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from hypothesis import settings

from mozagg2bq_assets.lake.manifest import MANIFESTS, AnyManifest, LoadManifest
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.postgres.pg_dump import LOCK_WAIT_SECONDS
from mozagg2bq_assets_tests.helpers.runs import Pipeline, end_killed_runs, job_command

TYPE = AggregateType.BUILD_ID
DAYS = DayRange(date(2019, 12, 1), date(2019, 12, 7))
KILLS = 20 if settings().max_examples == 500 else 2


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """A Dagster instance that outlives its runs' processes."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with DagsterInstance.get() as instance:
        yield instance


def start_run(backfill: str) -> subprocess.Popen[bytes]:
    """A process that takes all days through all stages in one run of a backfill."""
    arguments = job_command(TYPE, DAYS, **{"dagster/backfill": backfill})
    with Path(os.environ["DAGSTER_HOME"], "run.log").open("ab") as log:
        return subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)


def loaded(lake: Lake, backfill: str) -> dict[date, str]:
    """Versions of the days that a backfill has loaded so far."""
    manifests = {day: lake.read(LoadManifest, Partition(TYPE, day)) for day in DAYS}
    return {
        day: manifest.version
        for day, manifest in manifests.items()
        if manifest and manifest.run.backfill_id == backfill
    }


def orphans(lake: Lake, kind: type[AnyManifest]) -> set[str]:
    """Objects of a stage that no manifest names."""
    named = set()
    for day in DAYS:
        manifest = lake.read(kind, Partition(TYPE, day))
        assert manifest is not None
        folder = manifest.partition.ds_nodash
        names = [file.name for file in manifest.files] + [MANIFEST]
        named |= {f"{folder}/{manifest.version}/{name}" for name in names} | {f"{folder}/{MANIFEST}"}
    return lake.objects(kind.of, TYPE).keys() ^ named


@pytest.mark.stress
def test_killed_at_any_moment(instance: DagsterInstance, empty_pipeline: Pipeline) -> None:
    """The next run of the backfill keeps what was loaded, does the rest, and nothing is left behind anywhere."""
    empty_pipeline.seed(DAYS, 0.05)
    administrator, lake, warehouse = empty_pipeline
    started = time.monotonic()
    assert start_run("uninterrupted").wait(300) == 0
    seconds = time.monotonic() - started
    moments = random.Random(2019)  # noqa: S311
    for n in range(KILLS):
        backfill = f"killed-{n}"
        process = start_run(backfill)
        moment = moments.uniform(0.3, 1) * seconds
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        end_killed_runs(instance)
        kept = loaded(lake, backfill)
        assert start_run(backfill).wait(300) == 0, f"killed after {moment:.2f} s of {seconds:.2f} s"
        assert kept.items() <= loaded(lake, backfill).items()
        assert empty_pipeline.reconcile(DAYS).differences == []
        assert [orphans(lake, kind) for kind in MANIFESTS] == [set()] * 3
        tables = warehouse.client.list_tables(f"{warehouse.client.project}.{warehouse.dataset}")
        assert [table.table_id for table in tables] == [f"{TYPE}_aggregates"]
        assert [path for path in Path(gettempdir(), f"mozagg2bq-{os.getuid()}").iterdir() if path.is_dir()] == []
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"
        assert administrator.execute(sessions).fetchone() == (0,)


def test_a_lost_interrupt(instance: DagsterInstance, empty_pipeline: Pipeline) -> None:
    """A run that Python has not told of its cancellation, as that came in a finalizer, looks for itself and ends."""
    empty_pipeline.seed(DAYS)
    with empty_pipeline.source.transaction():
        empty_pipeline.source.execute("LOCK TABLE build_id_nightly_73_20191201 IN ACCESS EXCLUSIVE MODE")
        process = start_run("canceled")
        while not empty_pipeline.waiting_sessions():
            assert process.poll() is None
            time.sleep(0.1)
        (run,) = instance.get_runs()
        # No interrupt is sent.
        instance.report_run_canceling(run)
        assert process.wait(LOCK_WAIT_SECONDS / 2) != 0
    (run,) = instance.get_runs()
    assert run.status is DagsterRunStatus.CANCELED
