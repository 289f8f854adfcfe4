"""Services that are away, overloaded or cut off for a moment: the step is tried again, and no day fails.

What refuses is asked once.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from google.cloud import bigquery

from mozagg2bq_assets import patience
from mozagg2bq_assets.bigquery import warehouse as warehouse_module
from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.errors import TransientError
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, Request, TcpProxy, socket_of, tcp_proxy
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

PARTITIONS = [Partition(TYPE, day) for day in DAYS]


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.1)


@pytest.fixture
def network(source: Postgres) -> Iterator[TcpProxy]:
    """A proxy before PostgreSQL."""
    with tcp_proxy(socket_of(source)) as proxy:
        yield proxy


def lake_through(proxy: HttpProxy, lake: Lake) -> Lake:
    """The same lake by way of a proxy; its client does not try again by itself, so that we have to."""
    config = Config(retries={"total_max_attempts": 1}, response_checksum_validation="when_required")
    return replace(lake, client=boto3.client("s3", endpoint_url=proxy.url, config=config))


def run(
    pipeline: Pipeline, folder: Path, heard: Callable[[str], None] = lambda _: None, **changes: Any
) -> list[StageResult]:
    """All results of a run over all days; `heard` is told what it says."""
    writer = LakeWriter(changes.pop("lake", pipeline.lake), Run("run", "run"), lambda _: False)
    services = Services(
        writer, open_source(read_postgres()), DuckDBConverter(folder / Stage.PARQUET), pipeline.warehouse, 20
    )
    return list(ingest(PARTITIONS, list(Stage), replace(services, **changes), folder, progress=heard))


def check_exact(pipeline: Pipeline, results: list[StageResult]) -> None:
    """Every stage of every day is done, without a warning, and everything agrees."""
    assert [(result.error, result.warning) for result in results] == [(None, None)] * 9
    assert pipeline.reconcile().differences == []


SLOW_DOWN = Answer(503, b"<Error><Code>SlowDown</Code><Message>said so</Message></Error>")

S3_FAULTS: dict[str, tuple[Callable[[Request], bool], Answer]] = {
    "overloaded, uploads": (lambda r: r.method == "PUT" and ".dat.gz" in r.path, SLOW_DOWN),
    "overloaded, manifests put": (lambda r: r.method == "PUT" and "manifest.json" in r.path, SLOW_DOWN),
    "overloaded, manifests read": (lambda r: r.method == "GET" and "manifest.json" in r.path, SLOW_DOWN),
    "overloaded, listings": (lambda r: "list-type" in r.path, SLOW_DOWN),
    "cut, manifests": (lambda r: r.method == "GET" and "manifest.json" in r.path, Answer(200, b"{" * 900, cut=300)),
    "truncated, manifests": (lambda r: r.method == "GET" and "manifest.json" in r.path, Answer(200, b'{"sha256": "')),
    "cut, listings": (lambda r: "list-type" in r.path, Answer(200, b"<ListBucketResult>" + b" " * 900, cut=300)),
    "no XML, listings": (lambda r: "list-type" in r.path, Answer(200, b"<html>a proxy's page")),
    "an error of its own, uploads": (lambda r: r.method == "PUT" and ".dat.gz" in r.path, Answer(500)),
}


@pytest.mark.parametrize("kind", S3_FAULTS)
def test_s3(pipeline: Pipeline, s3: HttpProxy, tmp_path: Path, kind: str) -> None:
    """Three answers in a row."""
    s3.fail(1 if kind.startswith("truncated") else 3, *S3_FAULTS[kind])
    said: list[str] = []
    check_exact(pipeline, run(pipeline, tmp_path, said.append, lake=lake_through(s3, pipeline.lake)))
    waited = [line for line in said if line.startswith("waiting ")]
    assert waited or kind.startswith("truncated")
    assert all("S3, bucket lake, is away or overloaded" in line for line in waited)


@pytest.mark.parametrize("answer", [SLOW_DOWN, Answer(200, b"x" * 900, cut=300), Answer(200, b"x" * 900)])
def test_s3_downloads(pipeline: Pipeline, s3: HttpProxy, tmp_path: Path, answer: Answer) -> None:
    """A run that converts what is in the lake: files that are refused, cut, or come with other bytes at first."""
    said: list[str] = []
    run(pipeline, tmp_path / "first")
    # Of a file's five downloads in a row the client makes four again.
    s3.fail(1 if answer.status == 200 and answer.cut is None else 7, lambda r: r.path.endswith(".dat.gz"), answer)
    writer = LakeWriter(lake_through(s3, pipeline.lake), Run("again", "again"), lambda _: False)
    services = Services(writer, None, DuckDBConverter(tmp_path / "x"), None, 20)
    results = list(ingest(PARTITIONS, [Stage.PARQUET], services, tmp_path / "again", progress=said.append))
    assert [result.error for result in results] == [None] * 3


def test_s3_that_stays_away(pipeline: Pipeline, s3: HttpProxy, tmp_path: Path) -> None:
    """The days fail with the reason, one for one, once patience has ended."""
    s3.fail(10**6, lambda r: r.method == "PUT", SLOW_DOWN)
    results = run(pipeline, tmp_path, lake=lake_through(s3, pipeline.lake), patience_seconds=0.2)
    assert [result.stage for result in results] == [Stage.RAW_DUMP] * 3
    assert all("is away or overloaded" in str(result.error) for result in results)


def test_s3_refuses(pipeline: Pipeline, s3: HttpProxy, tmp_path: Path) -> None:
    """It is asked once a day, and the message says what to check."""
    s3.fail(10**6, lambda r: r.method == "PUT", Answer(403, b"<Error><Code>AccessDenied</Code></Error>"))
    said: list[str] = []
    results = run(pipeline, tmp_path, said.append, lake=lake_through(s3, pipeline.lake))
    assert all("check its name, AWS_ENDPOINT_URL" in str(result.error) for result in results)
    assert [line for line in said if line.startswith("waiting ")] == []
    puts = [request.path for request in s3.requests if request.method == "PUT"]
    assert len(puts) == len(set(puts))


def test_s3_key_without_the_right_to_delete(pipeline: Pipeline, s3: HttpProxy, tmp_path: Path) -> None:
    """What is committed is good; a warning says that what was replaced stays."""
    run(pipeline, tmp_path / "first")
    pipeline.source.execute("INSERT INTO build_id_nightly_73_20191201 VALUES ('{}', '{1}')")
    s3.fail(
        10**6,
        lambda r: r.method == "POST" and "delete" in r.path,
        Answer(403, b"<Error><Code>AccessDenied</Code></Error>"),
    )
    writer = LakeWriter(lake_through(s3, pipeline.lake), Run("again", "again"), lambda _: False)
    services = Services(writer, open_source(read_postgres()), DuckDBConverter(tmp_path / "x"), pipeline.warehouse)
    results = list(ingest(PARTITIONS[:1], list(Stage), services, tmp_path / "again"))
    assert [(result.error, result.rows.total) for result in results] == [(None, 251)] * 3
    assert all("could not be removed from the lake: S3" in str(result.warning) for result in results)
    assert pipeline.reconcile().differences == []


BIGQUERY_FAULTS: dict[str, tuple[Callable[[Request], bool], Answer]] = {
    "away, tables": (lambda r: "/tables/" in r.path, Answer(503)),
    "away, uploads": (lambda r: "/upload/" in r.path, Answer(503)),
    "cut, uploads": (lambda r: "/upload/" in r.path, Answer(200, b"x" * 900, cut=1)),
    "unknown, sessions of uploads": (
        lambda r: r.method == "PUT" and "/upload/" in r.path,
        Answer(404, json.dumps({"error": {"code": 404, "message": "Upload session x not found"}}).encode()),
    ),
    "unknown, jobs of queries": (
        lambda r: r.method == "GET" and "/queries/" in r.path,
        Answer(404, json.dumps({"error": {"code": 404, "message": "Not found: Job local:US.x"}}).encode()),
    ),
    "cut, queries": (lambda r: "/queries" in r.path, Answer(200, b"x" * 900, cut=1)),
    "overloaded, queries": (
        lambda r: "/queries" in r.path,
        Answer(403, json.dumps({"error": {"errors": [{"reason": "rateLimitExceeded"}], "code": 403}}).encode()),
    ),
}


def warehouse_through(proxy: HttpProxy, warehouse: Warehouse) -> Warehouse:
    """The same dataset by way of a proxy."""
    options = {"api_endpoint": proxy.url}
    return replace(warehouse, client=bigquery.Client(project=warehouse.client.project, client_options=options))


@pytest.mark.parametrize("kind", BIGQUERY_FAULTS)
def test_bigquery(
    pipeline: Pipeline, service: HttpProxy, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers in a row, to a client that gives up after the first as far as it can be told to."""
    monkeypatch.setattr(warehouse_module, "RETRY", None)
    service.fail(3, *BIGQUERY_FAULTS[kind])
    check_exact(pipeline, run(pipeline, tmp_path, warehouse=warehouse_through(service, pipeline.warehouse)))
    assert len([request for request in service.requests if BIGQUERY_FAULTS[kind][0](request)]) > 3


def test_a_load_job_that_fails_for_a_moment(pipeline: Pipeline, service: HttpProxy, tmp_path: Path) -> None:
    """It was taken, and came to nothing: the load is done again under another id."""
    failed: list[str] = []

    def fault(request: Request, real: Callable[[], Answer]) -> Answer | None:
        uploaded = "uploadType=resumable" in request.path and request.method == "PUT"
        if (not uploaded or len(failed) == 2) and not any(f"/jobs/{job_id}?" in request.path for job_id in failed):
            return None
        if real().status != 200:
            return real()
        job = json.loads(real().body)
        if uploaded:
            failed.append(job["jobReference"]["jobId"])
        job["status"] = {"state": "DONE", "errorResult": {"reason": "rateLimitExceeded", "message": "too many"}}
        return Answer(200, json.dumps(job).encode())

    service.fault = fault
    said: list[str] = []
    warehouse = warehouse_through(service, pipeline.warehouse)
    check_exact(pipeline, run(pipeline, tmp_path, said.append, warehouse=warehouse, in_flight=1))
    first, second = failed
    assert second == f"{first}-1"
    assert any("is away or overloaded: too many" in line for line in said)


def source_through(network: TcpProxy, source: Postgres) -> Postgres:
    """The same source by way of a proxy."""
    return replace(source, host="127.0.0.1", port=str(network.port))


@pytest.mark.parametrize("at", ["reading schemas", "dumping contents of table", "saving database definition"])
def test_postgresql_is_cut_off(
    pipeline: Pipeline, network: TcpProxy, source: Postgres, tmp_path: Path, at: str
) -> None:
    """All sessions at once, as when the server restarts, while pg_dump is at different things: its part is repeated."""
    said: list[str] = []
    cuts: list[str] = []

    def hear(message: str) -> None:
        said.append(message)
        if message.startswith(f"pg_dump: {at}") and len(cuts) < 2:
            cuts.append(message)
            network.cut()

    check_exact(pipeline, run(pipeline, tmp_path, hear, source=source_through(network, source)))
    # pg_dump may have been done when its message was read.
    assert cuts
    assert any(line.startswith("waiting ") for line in said)


def test_postgresql_that_starts_again(pipeline: Pipeline, tmp_path: Path, source: Postgres) -> None:
    """Nobody listens at first: it is waited for, and said so; without patience, the run ends with the reason."""
    said: list[str] = []
    with tcp_proxy(socket_of(source)) as network:
        through = source_through(network, source)
    with pytest.raises(TransientError, match="cannot connect to PostgreSQL"):
        run(pipeline, tmp_path, source=through, patience_seconds=0)

    def start_at_the_second_try(message: str) -> None:
        said.append(message)
        if len(said) == 2:
            stack.enter_context(tcp_proxy(socket_of(source), network.port))

    with ExitStack() as stack:
        check_exact(pipeline, run(pipeline, tmp_path, start_at_the_second_try, source=through))
    assert "waiting" in said[0]
    assert "Connection refused" in said[0]
