"""Spark through the assets, on one machine and on a standalone cluster, with damage, deaths and nothing installed."""

import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from dagster import DagsterInstance, DagsterInvalidConfigError

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import DumpManifest, ParquetManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local.spark import ADDRESS, Cluster, cluster
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.model.counts import TableCounts
from mozagg2bq_assets.model.files import StoredFile
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.parquet.converter import FileReference, SourceFile
from mozagg2bq_assets.spark.job import tasks
from mozagg2bq_assets.spark.session import check_java, prepare
from mozagg2bq_assets_tests.helpers.archives import archive_folder
from mozagg2bq_assets_tests.helpers.rows import Rows, parquet_rows
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, checks, end_killed_runs, job_command

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

BAD = date(2019, 12, 2)
# `python -m dagster` with a task for each file, so that days are merged.
SMALL_TASKS = """
import runpy
from mozagg2bq_assets.spark import job
job.TASK_BYTES = 1
runpy.run_module("dagster", run_name="__main__", alter_sys=True)
"""


def test_all_stages(spark: "SparkSession", small_tasks: None, pipeline: Pipeline, tmp_path: Path) -> None:
    """Both engines leave the same rows, and nothing differs anywhere."""
    assert pipeline.run(engine="spark").success
    assert pipeline.reconcile().differences == []
    of_spark = pipeline.stored_rows(tmp_path)
    assert pipeline.run(stages=(Stage.PARQUET,), engine="duckdb").success
    assert pipeline.stored_rows(tmp_path) == of_spark


def test_damaged_file_costs_its_day_only(spark: "SparkSession", small_tasks: None, pipeline: Pipeline) -> None:
    """A changed byte in the lake stops that day and names the object; the others are committed."""
    assert pipeline.run().success
    key = pipeline.flip_bit(Stage.RAW_DUMP, ".dat.gz", BAD)
    before = [pipeline.manifest(ParquetManifest, day) for day in DAYS]
    result = pipeline.run(stages=(Stage.PARQUET,), engine="spark")
    assert not result.success
    (bad,) = [check for check in checks(result) if not check.passed]
    assert (bad.partition, key in (bad.description or "")) == (str(BAD), True)
    after = [pipeline.manifest(ParquetManifest, day) for day in DAYS]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]


def test_missing_row_costs_its_day_only(spark: "SparkSession", pipeline: Pipeline) -> None:
    """A table without a row that its dump counted stops the day, with both counts; the others are committed."""
    assert pipeline.run().success
    dump = pipeline.manifest(DumpManifest, BAD)
    table, rows = next(iter(dump.rows.items()))
    pipeline.lake.publish(dump.model_copy(update={"rows": TableCounts({**dump.rows, table: rows + 1})}))
    result = pipeline.run(stages=(Stage.PARQUET,), engine="spark")
    assert not result.success
    (bad,) = [check for check in checks(result) if not check.passed]
    assert bad.partition == str(BAD)
    assert f"{table} should have {rows + 1} rows and has {rows}" in (bad.description or "")
    assert "differences" in bad.metadata


def test_unknown_engine(pipeline: Pipeline) -> None:
    """Dagster refuses it before anything is done; its launchpad offers those there are."""
    with pytest.raises(DagsterInvalidConfigError, match="not in enum type Engine got flink"):
        pipeline.run(engine="flink")
    assert not any(pipeline.lake.objects(stage, TYPE) for stage in Stage)  # it is said before anything is dumped


def test_largest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a day share a task until it has its size; the largest task is the first."""
    monkeypatch.setattr("mozagg2bq_assets.spark.job.TASK_BYTES", 10)
    sizes = {1: [3, 20, 4, 5, 1], 2: [11, 9]}
    files = [
        SourceFile(
            FileReference(f"{day}/{number}", StoredFile(f"{number}", size, "")),
            SourceTable(f"{day}/{number}", TYPE, "nightly", "73", date(2019, 12, day)),
            ("dimensions", "histogram"),
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
def expected(empty_pipeline: Pipeline, tmp_path: Path) -> Rows:
    """The rows of larger days, which the other engine has left in the lake."""
    empty_pipeline.seed(scale=0.04)
    assert empty_pipeline.run().success
    return empty_pipeline.stored_rows(tmp_path)


@contextmanager
def in_the_middle(lake: Lake, url: str, stored: int, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run on a cluster, from when executors have stored so many files; it has not ended."""
    before = lake.objects(Stage.PARQUET, TYPE).keys()
    with start_run(url, None, **environment) as driver:
        deadline = time.monotonic() + 300
        while len(lake.objects(Stage.PARQUET, TYPE).keys() - before) < stored:
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
    expected: Rows,
    empty_pipeline: Pipeline,
    tmp_path: Path,
    all_converted: bool,
) -> None:
    """With half of the cluster gone in the middle of the job, each row is there once, and nothing else."""
    with in_the_middle(
        empty_pipeline.lake, two_workers.url, data_files(empty_pipeline.lake) if all_converted else 1
    ) as driver:
        worker = psutil.Process(two_workers.workers[0].pid)
        for process in (worker, *worker.children(recursive=True)):
            process.kill()
        assert driver.poll() is None
        assert driver.wait(300) == 0
    assert empty_pipeline.stored_rows(tmp_path) == expected
    assert empty_pipeline.reconcile().differences == []


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
    expected: Rows,
    empty_pipeline: Pipeline,
    tmp_path: Path,
) -> None:
    """What a killed run's executors have stored is gone after the next run, in which a task that hangs is repeated."""
    with in_the_middle(empty_pipeline.lake, two_workers.url, 1) as driver:
        driver.kill()
    with DagsterInstance.get() as instance:
        end_killed_runs(instance)
    log = tmp_path / "events"
    log.mkdir()
    options = ("speculation true", "eventLog.enabled true", "eventLog.compress false", f"eventLog.dir {log}")
    (tmp_path / "spark-defaults.conf").write_text("".join(f"spark.{option}\n" for option in options))
    worker = psutil.Process(two_workers.workers[0].pid)
    with in_the_middle(empty_pipeline.lake, two_workers.url, 1, SPARK_CONF_DIR=str(tmp_path)) as driver:
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
    assert empty_pipeline.stored_rows(tmp_path) == expected
    assert empty_pipeline.reconcile().differences == []
    assert any('"Speculative":true' in path.read_text() for path in log.rglob("*") if path.is_file())


def test_executors_without_access(java: None, pipeline: Pipeline, tmp_path: Path) -> None:
    """The run fails with the executors' error in a line, which says what to look at, and keeps the dumps."""
    (tmp_path / "spark-defaults.conf").write_text("spark.executorEnv.AWS_SECRET_ACCESS_KEY wrong\n")
    with start_run("local[1]", stdout=subprocess.PIPE, SPARK_CONF_DIR=str(tmp_path)) as driver:
        output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 1
    assert re.search(rb"Failure: Spark, master local\[1\]: \S*UserError: S3, bucket lake: .*AWS credentials", output), (
        output.decode()
    )
    assert all(pipeline.lake.read(DumpManifest, Partition(TYPE, day)) for day in DAYS)
    assert pipeline.lake.objects(Stage.PARQUET, TYPE) == {}


def test_executors_without_the_package(
    two_workers: Cluster, executors_archive: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    """The archive is all that executors need besides Python."""
    # Without packages that the Python below has by chance.
    venv.create(tmp_path / "bare")
    bare = str(tmp_path / "bare" / "bin" / "python")
    assert subprocess.run((bare, "-c", "import numpy"), check=False, capture_output=True).returncode == 1
    with start_run(two_workers.url, PYSPARK_PYTHON=bare, SPARK_ARCHIVE=str(executors_archive)) as driver:
        assert driver.wait(300) == 0
    assert pipeline.reconcile().differences == []


def test_python_on_path(stack: object, java: None, tmp_path: Path) -> None:
    """Executors here run the Python of the command, not what PATH calls python3."""
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    archive = archive_folder("18")
    arguments = ("--input-dir", str(archive), "--output-dir", str(tmp_path), "--engine", "spark")
    command = (sys.executable, "-c", "from mozagg2bq_assets.cli.main import main; main()", "to-parquet", *arguments)
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    subprocess.run(command, env=environment, check=True)
    assert sum(parquet_rows(tmp_path / "aggregates.parquet").values()) == 16


def test_another_spark(java: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SPARK_HOME that leads elsewhere is said, before anything is dumped."""
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"SPARK_HOME is {tmp_path}, where there is no Spark "):
        prepare()


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
    ("code", "others"),
    [
        ("from mozagg2bq_assets.definitions import defs; defs()", ()),
        ("from mozagg2bq_assets.cli.main import main; main()", ("boto3", "psycopg", "pydantic", "dagster", "google")),
    ],
)
def test_what_the_default_path_imports(stack: object, tmp_path: Path, code: str, others: tuple[str, ...]) -> None:
    """Neither the code location nor a conversion imports Spark, or pandas; a conversion imports no client either.

    Each of those takes longer to import than a small day to convert, and executors may not have it.
    """
    names = {"pyspark", "dagster_pyspark", "pandas", "thrift", *others}
    arguments = ("to-parquet", "--input-dir", str(archive_folder("18")), "--output-dir", str(tmp_path))
    code = f"import sys, atexit; atexit.register(lambda: print('imported', *{names} & sys.modules.keys())); {code}"
    result = subprocess.run((sys.executable, "-c", code, *arguments), capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "imported"
