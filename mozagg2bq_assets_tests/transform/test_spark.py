"""Spark through the assets, on one machine and on a standalone cluster, with damage, deaths and nothing installed."""

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from mozagg2bq_assets.assets import PARQUET, STAGES, stage_key
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import Stage, StoredFile
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.spark import ADDRESS, Cluster, cluster
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.reconcile import Range, reconcile
from mozagg2bq_assets.schema import AggregateType, SourceTable, ds_nodash
from mozagg2bq_assets.transform.spark import Located, SourceFile, check_java, tasks
from mozagg2bq_assets.warehouse.bigquery import Warehouse
from mozagg2bq_assets_tests.conftest import end_killed_runs, job_command
from mozagg2bq_assets_tests.pgdump.make_archives import ARCHIVES
from mozagg2bq_assets_tests.transform.test_rows import parquet_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TYPE = AggregateType.BUILD_ID
DAYS = Range(date(2019, 12, 1), date(2019, 12, 4), counted=True)
BAD = date(2019, 12, 2)
IMPORTED = "print('imported', *{'pyspark', 'dagster_pyspark', 'pandas', 'thrift'} & sys.modules.keys())"
# `python -m dagster` with a task for each file, so that days are merged.
SMALL_TASKS = """
import runpy
from mozagg2bq_assets.transform import spark
spark.TASK_BYTES = 1
runpy.run_module("dagster", run_name="__main__", alter_sys=True)
"""


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


def test_damaged_file_costs_its_day_only(
    spark: "SparkSession", days: None, lake: Lake, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed byte in the lake stops that day and names the object; the others are committed."""
    monkeypatch.setattr("mozagg2bq_assets.transform.spark.TASK_BYTES", 1)
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


def test_missing_row_costs_its_day_only(spark: "SparkSession", days: None, lake: Lake, warehouse: Warehouse) -> None:
    """A table without a row that its dump counted stops the day, with both counts; the others are committed."""
    assert run("duckdb").success
    dump = lake.read_manifest(Stage.RAW_DUMP, TYPE, BAD)
    assert dump is not None
    table, rows = next(iter(dump.rows.items()))
    lake.switch(replace(dump, rows={**dump.rows, table: rows + 1}), lambda _: False)
    result = run("spark", (PARQUET,))
    assert not result.success
    (bad,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert bad.partition == str(BAD)
    assert f"{table} should have {rows + 1} rows and has {rows}" in (bad.description or "")
    assert "differences" in bad.metadata


def test_unknown_engine(stack: object, days: None, lake: Lake, warehouse: Warehouse) -> None:
    """One line that names those there are."""
    result = run("flink")
    assert not result.success
    assert any("use duckdb or spark" in str(event) for event in result.all_events)
    assert not any(lake.objects(stage, TYPE) for stage in STAGES)  # it is said before anything is dumped


def test_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a day share a task until it has its size; the largest task is the first."""
    monkeypatch.setattr("mozagg2bq_assets.transform.spark.TASK_BYTES", 10)
    sizes = {1: [3, 20, 4, 5, 1], 2: [11, 9]}
    files = [
        SourceFile(
            Located(f"{day}/{number}", StoredFile(f"{number}", size, "")),
            SourceTable(f"{day}/{number}", TYPE, "nightly", "73", date(2019, 12, day)),
            None,
            BAD,
        )
        for day, of_day in sizes.items()
        for number, size in enumerate(of_day)
    ]
    packed = [[(file.table.day.day, file.source.file.size) for file in task] for task in tasks(files)]
    assert packed == [[(1, 20)], [(1, 5), (1, 4), (1, 3)], [(2, 11)], [(2, 9)], [(1, 1)]]


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


def start_run(url: str, stdout: int | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own: all days through all stages, converted on a cluster."""
    variables = {"TRANSFORM_ENGINE": "spark", "SPARK_MASTER": url, "SPARK_LOCAL_IP": ADDRESS, **environment}
    python, _, _, *arguments = job_command(TYPE, DAYS)
    command = (python, "-c", SMALL_TASKS, *arguments)
    return subprocess.Popen(command, env=os.environ | variables, stdout=stdout, stderr=stdout and subprocess.STDOUT)


@pytest.fixture
def expected(
    administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse, tmp_path: Path
) -> Counter[tuple[object, ...]]:
    """The rows of larger days, which the other engine has left in the lake."""
    seed(administrator, 0.2)
    assert run("duckdb").success
    return stored_rows(lake, tmp_path)


@contextmanager
def in_the_middle(lake: Lake, url: str, stored: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run on a cluster, from when executors have stored so many files; it has not ended."""
    before = lake.objects(PARQUET, TYPE).keys()
    with start_run(url, **environment) as driver:
        deadline = time.monotonic() + 120
        while len(lake.objects(PARQUET, TYPE).keys() - before) < stored:
            assert driver.poll() is None, "the run ended before anything could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield driver


def data_files(lake: Lake) -> int:
    """How many there are in the dumps of all days: so many tasks convert them."""
    return sum(key.endswith(".dat.gz") for key in lake.objects(Stage.RAW_DUMP, TYPE))


@pytest.mark.parametrize("all_converted", [False, True], ids=["converting", "merging"])
def test_killed_worker(
    two_workers: Cluster,
    expected: Counter[tuple[object, ...]],
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
    all_converted: bool,
) -> None:
    """With half of the cluster gone in the middle of the job, each row is there once, and nothing else."""
    with in_the_middle(lake, two_workers.url, data_files(lake) if all_converted else 1) as driver:
        worker = psutil.Process(two_workers.workers[0].pid)
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        assert driver.poll() is None
        assert driver.wait(300) == 0
    assert stored_rows(lake, tmp_path) == expected
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []


def python_workers(worker: psutil.Process) -> list[psutil.Process]:
    """The processes that run Python for a worker's executors."""
    found = []
    for process in worker.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a zombie is none either
            if "pyspark.daemon" in process.cmdline():
                found.append(process)
    return found


def test_killed_driver_and_straggler(
    two_workers: Cluster,
    expected: Counter[tuple[object, ...]],
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
) -> None:
    """What a killed run's executors have stored is gone after the next run, in which a task that hangs is repeated."""
    with in_the_middle(lake, two_workers.url, 1) as driver:
        driver.kill()
    with DagsterInstance.get() as instance:
        end_killed_runs(instance)
    log = tmp_path / "events"
    log.mkdir()
    options = ("speculation true", "eventLog.enabled true", "eventLog.compress false", f"eventLog.dir {log}")
    (tmp_path / "spark-defaults.conf").write_text("".join(f"spark.{option}\n" for option in options))
    worker = psutil.Process(two_workers.workers[0].pid)
    with in_the_middle(lake, two_workers.url, 1, SPARK_CONF_DIR=str(tmp_path)) as driver:
        while not (hanging := python_workers(worker)):
            assert driver.poll() is None
            time.sleep(0.05)
        for process in hanging:
            process.suspend()
        try:
            assert driver.wait(300) == 0
        finally:
            for process in hanging:
                with suppress(psutil.NoSuchProcess):
                    process.resume()
    assert stored_rows(lake, tmp_path) == expected
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []
    assert any('"Speculative":true' in path.read_text() for path in log.rglob("*") if path.is_file())


def test_executors_without_access(
    stack: object, java: None, days: None, lake: Lake, warehouse: Warehouse, tmp_path: Path
) -> None:
    """The run fails with the executors' error in a line, which says what to look at, and keeps the dumps."""
    (tmp_path / "spark-defaults.conf").write_text("spark.executorEnv.AWS_SECRET_ACCESS_KEY wrong\n")
    with start_run("local[1]", stdout=subprocess.PIPE, SPARK_CONF_DIR=str(tmp_path)) as driver:
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert re.search(rb"Failure: Spark, master local\[1\]: \S*UserError: S3, bucket lake: .*AWS credentials", output), (
        output.decode()
    )
    assert len(lake.manifests(Stage.RAW_DUMP, TYPE)) == len(list(DAYS))
    assert lake.objects(PARQUET, TYPE) == {}


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


def test_python_on_path(stack: object, java: None, tmp_path: Path) -> None:
    """Executors here run the Python of the command, not what PATH calls python3."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    archive = ARCHIVES / "18" / "build_id" / "20191201"
    arguments = ("--input-dir", str(archive), "--output-dir", str(tmp_path), "--engine", "spark")
    command = (sys.executable, "-c", "from mozagg2bq_assets import cli; cli.main()", "to-parquet", *arguments)
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    subprocess.run(command, env=environment, check=True)
    assert sum(parquet_rows(tmp_path / "aggregates.parquet").values()) == 16


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


@pytest.mark.parametrize(
    "code", ["import mozagg2bq_assets.definitions", "from mozagg2bq_assets.cli import main; main()"]
)
def test_default_path_knows_no_spark(stack: object, tmp_path: Path, code: str) -> None:
    """Neither the code location nor a conversion imports Spark, or pandas."""
    archive = ARCHIVES / "18" / "build_id" / "20191201"
    arguments = ("to-parquet", "--input-dir", str(archive), "--output-dir", str(tmp_path))
    code = f"import sys, atexit; atexit.register(lambda: {IMPORTED}); {code}"
    result = subprocess.run((sys.executable, "-c", code, *arguments), capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "imported"
