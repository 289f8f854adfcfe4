"""A local stack for the whole test session, in a folder of its own, and this process's environment pointing at it.

Nothing is mocked: PostgreSQL, S3 over HTTP and BigQuery's server all run.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings

from mozagg2bq_assets.bigquery.warehouse import Warehouse, open_warehouse
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local.stack import ROOT, Stack, running_stack
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings, SparkSettings, read_postgres
from mozagg2bq_assets.spark.session import check_java, open_session, spark_config
from mozagg2bq_assets_tests.helpers.engines import Engine, spark_engine
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, http_proxy
from mozagg2bq_assets_tests.helpers.runs import Pipeline

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Tests that run at the same time have a TMPDIR each: some look at all that runs leave there.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    tempfile.tempdir = None
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix=f"{worker}-")
    Path(os.environ["TMPDIR"]).chmod(0o755)  # PostgreSQL does not run as root, and works below it
    tempfile.tempdir = None

# Who is started in the background may ignore Ctrl-C, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# These take minutes, and begin first: else a worker would be alone with one of them at the end.
LONGEST = (
    "spark/test_spark",
    "cli/test_backfill",
    "parquet/test_rows",
    "faults/test_outages",
    "faults/test_months",
    "docs/test_commands",
    "browser/test_pages",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first. Mark what asks for no server as `unit`, and of the rest what is not marked `stress` as
    `integration`.
    """
    order = {ROOT / "mozagg2bq_assets_tests" / f"{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))
    for item in items:
        needs_server = "stack" in getattr(item, "fixturenames", ())
        if item.get_closest_marker("stress") is None and item.get_closest_marker("integration") is None:
            item.add_marker("integration" if needs_server else "unit")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="mozagg2bq-test-") as folder:
        stack = Stack(Path(folder))
        with running_stack(stack):
            # A test that meets a service which is away has to say so, or fails soon.
            os.environ["OUTAGE_PATIENCE_SECONDS"] = "2"
            # Tests have days of every era.
            os.environ["PARTITIONS_START"] = "2015-06-01"
            # Most tests look for what is left; those of versions ask for more.
            os.environ["LAKE_VERSIONS"] = "1"
            yield stack
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def source(stack: Stack) -> Postgres:
    """The source, as the pipeline connects to it."""
    return open_source(read_postgres())


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
    return Lake(LakeSettings.read())


@pytest.fixture
def warehouse(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A dataset of the test's own, also for what reads BIGQUERY_DATASET."""
    monkeypatch.setenv("BIGQUERY_DATASET", f"test_{uuid4().hex}")
    return open_warehouse(BigQuerySettings.read())


@pytest.fixture
def s3(lake: Lake) -> Iterator[HttpProxy]:
    """A proxy before the lake."""
    with http_proxy(lake.client.meta.endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def service(warehouse: Warehouse) -> Iterator[HttpProxy]:
    """A proxy before BigQuery."""
    with http_proxy(str(warehouse.client._connection.API_BASE_URL)) as proxy:
        yield proxy


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    """A webhook that takes everything."""
    with http_proxy("http://127.0.0.1:1") as receiver:
        receiver.fault = lambda *_: Answer(200, b"ok")
        monkeypatch.setenv("ALERT_WEBHOOK_URL", f"{receiver.url}/services/secret")
        monkeypatch.setenv("DAGSTER_URL", "http://dagster.example.com/")
        yield receiver


@pytest.fixture
def empty_pipeline(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse) -> Pipeline:
    """A source without tables, and nothing behind it."""
    return Pipeline(administrator, lake, warehouse)


@pytest.fixture
def pipeline(empty_pipeline: Pipeline) -> Pipeline:
    """Three days in the source, nothing behind it."""
    empty_pipeline.seed()
    return empty_pipeline


@pytest.fixture(scope="session")
def java(stack: Stack) -> None:
    """Skips what needs Spark where there is no Java for it; CI does not let that pass."""
    # A JVM here lives for seconds: optimizing its code costs more than it saves.
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    try:
        check_java()
    except UserError as error:
        if os.environ.get("REQUIRE_JAVA"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def chromium() -> str:
    """Skips where there is none; CI does not let that pass."""
    command = shutil.which("chromium")
    if command is None:
        if os.environ.get("REQUIRE_BROWSER"):
            raise AssertionError("no chromium on PATH")
        pytest.skip("no chromium on PATH")
    return command


@pytest.fixture
def spark(stack: Stack, java: None) -> "SparkSession":
    """Spark in this process's own JVM: the one that is there, unless a run of the assets has stopped it."""
    return open_session(spark_config(SparkSettings.read()))


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Spark each file makes a task of its own, so that days are merged."""
    monkeypatch.setattr("mozagg2bq_assets.spark.job.TASK_BYTES", 1)


@pytest.fixture(params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest, small_tasks: None) -> Engine:
    """What turns an archive into Parquet, under the archive's date: both have to give the same rows."""
    return DuckDBConverter if request.param == "duckdb" else spark_engine(request.getfixturevalue("spark"))


# An example is ten days: 200 days in CI, 5,000 with --hypothesis-profile=long.
settings.register_profile("ci", max_examples=20)
settings.register_profile("long", max_examples=500)
settings.load_profile("ci")
