"""Spark through the assets, on one machine and on a standalone cluster, with damage, deaths and nothing installed."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from mozagg2bq_assets.assets import PARQUET, STAGES, stage_key
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import Stage
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.spark import Cluster, cluster
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.reconcile import Range, reconcile
from mozagg2bq_assets.schema import AggregateType, ds_nodash
from mozagg2bq_assets.transform.spark import check_java
from mozagg2bq_assets.warehouse.bigquery import Warehouse
from mozagg2bq_assets_tests.conftest import end_killed_runs, job_command
from mozagg2bq_assets_tests.transform.test_rows import parquet_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TYPE = AggregateType.BUILD_ID
DAYS = Range(date(2019, 12, 1), date(2019, 12, 4), counted=True)
BAD = date(2019, 12, 2)


@pytest.fixture
def days(administrator: psycopg.Connection) -> None:
    """Three days in the source."""
    seed(administrator, 0.001)


def seed(connection: psycopg.Connection, scale: float) -> None:
    """Fill the source."""
    sample.create_update_dates(connection)
    for day in DAYS:
        for _ in sample.seed_day(connection, TYPE, day, scale):
            pass


def run(engine: str, stages: tuple[Stage, ...] = STAGES) -> ExecuteInProcessResult:
    """All days through the stages with an engine."""
    from mozagg2bq_assets.definitions import defs

    config: dict[str, Any] = {"ops": {f"{TYPE}_stages": {"config": {"engine": engine}}}}
    with DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def(f"{TYPE}_job").execute_in_process(
            instance=instance,
            run_config=config,
            asset_selection=[stage_key(TYPE, stage) for stage in stages],
            tags={
                "dagster/asset_partition_range_start": str(DAYS.start),
                "dagster/asset_partition_range_end": str(DAYS.end - timedelta(days=1)),
            },
            raise_on_error=False,
        )


def stored_rows(lake: Lake, folder: Path) -> Counter[tuple[object, ...]]:
    """All rows of the days in the lake; and nothing else is there."""
    rows: Counter[tuple[object, ...]] = Counter()
    keys = set()
    for day in DAYS:
        manifest = lake.read_manifest(PARQUET, TYPE, day)
        assert manifest is not None
        (path,) = lake.fetch(manifest, folder)
        rows += parquet_rows(path)
        keys |= {f"{ds_nodash(day)}/{MANIFEST}", f"{ds_nodash(day)}/{manifest.version}/{path.name}"}
    assert lake.objects(PARQUET, TYPE).keys() == keys
    return rows


def test_all_stages(
    spark: "SparkSession",
    days: None,
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both engines leave the same rows, and nothing differs anywhere."""
    monkeypatch.setattr("mozagg2bq_assets.transform.spark.TASK_BYTES", 1)
    assert run("spark").success
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []
    of_spark = stored_rows(lake, tmp_path)
    assert run("duckdb", (PARQUET,)).success
    assert stored_rows(lake, tmp_path) == of_spark


def test_damaged_file_costs_its_day_only(spark: "SparkSession", days: None, lake: Lake, warehouse: Warehouse) -> None:
    """A changed byte in the lake stops that day and names the object; the others are committed."""
    assert run("duckdb").success
    key = next(key for key in lake.objects(Stage.RAW_DUMP, TYPE) if key[:8] == ds_nodash(BAD) and key.endswith(".gz"))
    full = f"{lake.prefix}/raw_dump/{TYPE}/{key}"
    body = bytearray(lake.client.get_object(Bucket="lake", Key=full)["Body"].read())
    body[len(body) // 2] ^= 1
    lake.client.put_object(Bucket="lake", Key=full, Body=bytes(body))
    before = [lake.read_manifest(PARQUET, TYPE, day) for day in DAYS]
    result = run("spark", (PARQUET,))
    assert not result.success
    (bad,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert (bad.partition, full in (bad.description or "")) == (str(BAD), True)
    after = [lake.read_manifest(PARQUET, TYPE, day) for day in DAYS]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]


def test_unknown_engine(stack: object, days: None, lake: Lake, warehouse: Warehouse) -> None:
    """One line that names those there are."""
    result = run("flink")
    assert not result.success
    assert any("use duckdb or spark" in str(event) for event in result.all_events)
    assert lake.objects(PARQUET, TYPE) == {}


@pytest.fixture(scope="module")
def executors_archive() -> Path:
    """The package for executors that have nothing of ours."""
    subprocess.run(("make", "--directory", str(ROOT), "spark-archive"), check=True)
    return ROOT / "dist" / "executors.zip"


@pytest.fixture
def two_workers(stack: object, java: None, tmp_path: Path) -> Iterator[Cluster]:
    """A standalone cluster."""
    with cluster(tmp_path, 2) as running:
        yield running


def start_run(url: str, **environment: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own: all days through all stages, converted on a cluster."""
    variables = {"TRANSFORM_ENGINE": "spark", "SPARK_MASTER": url, "SPARK_LOCAL_IP": "127.0.0.1", **environment}
    return subprocess.Popen(job_command(TYPE, DAYS), env=os.environ | variables)


@pytest.fixture
def expected(
    administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse, tmp_path: Path
) -> Counter[tuple[object, ...]]:
    """The rows of larger days, which the other engine has left in the lake."""
    seed(administrator, 0.2)
    assert run("duckdb").success
    return stored_rows(lake, tmp_path)


@contextmanager
def in_the_middle(lake: Lake, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run on a cluster, from when an executor has stored something; no day is committed yet."""
    before = lake.objects(PARQUET, TYPE).keys()
    with start_run(url) as driver:
        deadline = time.monotonic() + 120
        while not lake.objects(PARQUET, TYPE).keys() - before:
            assert driver.poll() is None, "the run ended before anything could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield driver


def test_killed_worker(
    two_workers: Cluster,
    expected: Counter[tuple[object, ...]],
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
) -> None:
    """With half of the cluster gone in the middle of the job, each row is there once, and nothing else."""
    before = lake.objects(PARQUET, TYPE).keys()
    with in_the_middle(lake, two_workers.url) as driver:
        worker = psutil.Process(two_workers.workers[0].pid)
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        assert lake.objects(PARQUET, TYPE).keys() > before  # no day was committed yet
        assert driver.wait(300) == 0
    assert stored_rows(lake, tmp_path) == expected
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []


def test_killed_driver_and_speculation(
    two_workers: Cluster,
    expected: Counter[tuple[object, ...]],
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
) -> None:
    """What a killed run's executors have stored is gone after the next run, also where that tries every task twice."""
    with in_the_middle(lake, two_workers.url) as driver:
        driver.kill()
    with DagsterInstance.get() as instance:
        end_killed_runs(instance)
    eager = {"": "true", ".quantile": "0", ".multiplier": "1.001", ".minTaskRuntime": "1ms", ".interval": "10ms"}
    lines = [f"spark.speculation{name} {value}\n" for name, value in eager.items()]
    (tmp_path / "spark-defaults.conf").write_text("".join(lines))
    with start_run(two_workers.url, SPARK_CONF_DIR=str(tmp_path)) as driver:
        assert driver.wait(300) == 0
    assert stored_rows(lake, tmp_path) == expected
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []


def test_executors_without_the_package(
    two_workers: Cluster,
    executors_archive: Path,
    days: None,
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
) -> None:
    """The archive is all that executors need besides Python."""
    bare = sys._base_executable  # type: ignore[attr-defined]
    assert subprocess.run((bare, "-c", "import duckdb"), check=False, capture_output=True).returncode == 1
    with start_run(two_workers.url, PYSPARK_PYTHON=bare, SPARK_ARCHIVE=str(executors_archive)) as driver:
        assert driver.wait(300) == 0
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []


def test_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install is said, also where Java is too old."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no Java found; Spark needs a JDK 17 or newer: install one"):
        check_java()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(UserError, match=r"Java is too old \(openjdk version \"1.8.0_392\"\); Spark needs a JDK 17"):
        check_java()


def test_default_path_knows_no_spark() -> None:
    """Loading the code location imports neither Spark nor pandas."""
    code = (
        "import sys, mozagg2bq_assets.definitions;"
        "print(*{'pyspark', 'dagster_pyspark', 'pandas', 'duckdb_spark'} & sys.modules.keys())"
    )
    result = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
