"""A local stack for the whole test session, in a folder of its own, and this process's environment pointing at it.

Nothing is mocked: PostgreSQL, S3 over HTTP and BigQuery's server all run.
"""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from dagster import DagsterInstance
from hypothesis import settings

from mozagg2bq_assets import environment
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local.stack import Stack, running
from mozagg2bq_assets.pgdump.archive import DayArchive
from mozagg2bq_assets.pgdump.source import Postgres
from mozagg2bq_assets.reconcile import Range
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.transform.kernel import ParquetFile, write_parquet
from mozagg2bq_assets.transform.spark import check_java
from mozagg2bq_assets.transform.spark import session as spark_session
from mozagg2bq_assets.transform.storage import convert_archive
from mozagg2bq_assets.warehouse.bigquery import Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


Engine = Callable[[DayArchive, Path], ParquetFile]

# Who is started in the background may ignore Ctrl-C, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mozagg2bq-test-") as folder:
        stack = Stack(Path(folder))
        with running(stack):
            yield stack
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def source(stack: Stack) -> Postgres:
    """The source, as the pipeline connects to it."""
    return environment.postgres()


@pytest.fixture
def administrator(stack: Stack) -> Iterator[psycopg.Connection]:
    """Writes to the source; every table of schema public is gone afterwards."""
    with stack.administrator() as connection:
        yield connection
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")


@pytest.fixture
def lake(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake of the test's own, also for what reads LAKE_URI."""
    monkeypatch.setenv("LAKE_URI", f"s3://lake/{uuid4()}")
    return environment.lake()


@pytest.fixture
def warehouse(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A dataset of the test's own, also for what reads BIGQUERY_DATASET."""
    monkeypatch.setenv("BIGQUERY_DATASET", f"test_{uuid4().hex}")
    return environment.warehouse()


@pytest.fixture(scope="session")
def java() -> None:
    """Skips what needs Spark where there is no Java for it; CI does not let that pass."""
    try:
        check_java()
    except environment.UserError as error:
        if os.environ.get("REQUIRE_JAVA"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def spark(stack: Stack, java: None) -> "SparkSession":
    """Spark in this process's own JVM: the one that is there, unless a run of the assets has stopped it."""
    return spark_session()


@pytest.fixture(params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """What turns an archive into Parquet, under the archive's date: both have to give the same rows.

    On Spark each file makes a task of its own, so that days are merged.
    """
    monkeypatch.setattr("mozagg2bq_assets.transform.spark.TASK_BYTES", 1)
    if request.param == "duckdb":
        return lambda archive, output: write_parquet(archive, archive.created, output)
    session = request.getfixturevalue("spark")
    return lambda archive, output: convert_archive(session, archive, output)


def job_command(aggregate_type: AggregateType, days: Range, **tags: str) -> tuple[str, ...]:
    """The command line of a process that takes all those days through all stages in one run."""
    first, *_, last = days
    bounds = {"dagster/asset_partition_range_start": str(first), "dagster/asset_partition_range_end": str(last)}
    command = ("dagster", "job", "execute", "-m", "mozagg2bq_assets.definitions", "-j", f"{aggregate_type}_job")
    return (sys.executable, "-m", *command, "--tags", json.dumps(bounds | tags))


def end_killed_runs(instance: DagsterInstance) -> None:
    """Report them as failed, as run monitoring does when it finds no process."""
    for run in instance.get_runs():
        if not run.is_finished:
            instance.report_run_failed(run)


# An example is ten days: 200 days in CI, 5,000 with --hypothesis-profile=long.
settings.register_profile("ci", max_examples=20)
settings.register_profile("long", max_examples=500)
settings.load_profile("ci")
