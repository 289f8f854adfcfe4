"""`mozagg2bq doctor`: what it says with all grants, and with each of them missing."""

import psycopg
import pytest

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.pipeline.doctor import examine_lake
from mozagg2bq_assets_tests.helpers.cli import run
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, Request
from mozagg2bq_assets_tests.helpers.runs import Pipeline


def doctor(**environment: str) -> tuple[int, list[str], str]:
    """Status, lines and errors of the command."""
    result = run("doctor", **environment)
    return result.returncode, result.stdout.splitlines(), result.stderr


def fails(lines: list[str]) -> list[str]:
    """Lines of steps that fail."""
    return [line for line in lines if line.startswith("FAILS")]


def test_everything_is_granted(pipeline: Pipeline) -> None:
    """Every step works with the embedded stack's role, which has no more than the least grants; nothing is left."""
    status, lines, errors = doctor()
    assert (status, fails(lines), errors) == (0, [], "")
    assert len(lines) == 13
    assert list(pipeline.lake.list(pipeline.lake.prefix)) == []
    tables = pipeline.warehouse.client.list_tables(f"{pipeline.warehouse.client.project}.{pipeline.warehouse.dataset}")
    assert list(tables) == []


@pytest.mark.parametrize(
    ("statement", "undo", "tried"),
    [
        (
            "REVOKE pg_read_all_data FROM telemetry",
            "GRANT pg_read_all_data TO telemetry",
            ["count and lock a table", "read table_update_dates", "snapshot, and pg_dump of a day"],
        ),
        ("DROP TABLE table_update_dates", "SELECT 1", []),  # nothing to grant, as nothing is recorded
        (
            "ALTER ROLE telemetry NOLOGIN",
            "ALTER ROLE telemetry LOGIN",
            ["connect, list tables", "count and lock", "read table_update_dates", "snapshot"],
        ),
    ],
)
def test_source(
    pipeline: Pipeline, administrator: psycopg.Connection, statement: str, undo: str, tried: list[str]
) -> None:
    """What is missing is said at each step that needs it, with the grant."""
    administrator.execute(statement.encode())
    try:
        status, lines, _ = doctor()
    finally:
        administrator.execute(undo.encode())
    assert status == bool(tried)
    assert all(f"PostgreSQL: {what}" in line for what, line in zip(tried, fails(lines), strict=True))
    assert all("(the step needs: GRANT" in line for line in fails(lines))


S3_GRANTS = {
    "s3:PutObject": lambda r: r.method == "PUT",
    "s3:ListBucket": lambda r: "list-type" in r.path,
    "s3:GetObject": lambda r: r.method in ("GET", "HEAD") and "probe" in r.path,
    "s3:ListBucketMultipartUploads": lambda r: "?uploads" in r.path or "&uploads" in r.path,
    "s3:DeleteObject": lambda r: r.method == "POST" and "delete" in r.path,
}


@pytest.mark.parametrize("grant", S3_GRANTS)
def test_lake(pipeline: Pipeline, s3: HttpProxy, grant: str) -> None:
    """A proxy refuses what the grant allows."""
    s3.fail(10**6, S3_GRANTS[grant], Answer(403, b"<Error><Code>AccessDenied</Code></Error>"))
    status, lines, _ = doctor(AWS_ENDPOINT_URL=s3.url)
    assert status == 1
    assert f"(the step needs: {grant}" in fails(lines)[0]
    assert all("S3: " in line for line in fails(lines))


@pytest.mark.parametrize(
    ("name", "value", "service"),
    [
        ("POSTGRES_HOST", "/nowhere", "PostgreSQL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "S3"),
        ("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:1", "BigQuery"),
    ],
)
def test_a_service_that_is_away(pipeline: Pipeline, name: str, value: str, service: str) -> None:
    """It is named once, without a grant that would not help, and the others are tried."""
    status, lines, _ = doctor(**{name: value})
    assert status == 1
    (line,) = fails(lines)
    assert line.startswith(f"FAILS  {service}: ")
    assert "needs:" not in line
    assert len({each.split()[1] for each in lines}) == 3


def test_nobody_reads_on(pipeline: Pipeline) -> None:
    """The object that it has stored is removed all the same."""
    findings = examine_lake(pipeline.lake)
    assert next(findings).problem is None
    assert len(list(pipeline.lake.list(pipeline.lake.prefix))) == 1
    findings.close()
    assert list(pipeline.lake.list(pipeline.lake.prefix)) == []


def test_some_tables_cannot_be_read(pipeline: Pipeline) -> None:
    """Not the latest, but an older one: it is named."""
    pipeline.source.execute("REVOKE pg_read_all_data FROM telemetry")
    pipeline.source.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO telemetry")
    pipeline.source.execute("REVOKE SELECT ON build_id_nightly_73_20191201 FROM telemetry")
    try:
        status, lines, _ = doctor()
    finally:
        pipeline.source.execute("GRANT pg_read_all_data TO telemetry")
    assert status == 1
    (line,) = fails(lines)
    assert "1 tables cannot be read, build_id_nightly_73_20191201 among them" in line
    assert "ALTER DEFAULT PRIVILEGES" in line


BIGQUERY_GRANTS: dict[str, tuple[str, str]] = {
    "make a table": ("POST", "/tables?"),
    "load a row": ("POST", "/upload/"),
    "query it": ("GET", "/queries/"),
    "drop the table": ("DELETE", "/tables/"),
}


@pytest.mark.parametrize("step", BIGQUERY_GRANTS)
def test_warehouse(pipeline: Pipeline, warehouse: Warehouse, service: HttpProxy, step: str) -> None:
    """A proxy refuses what the step asks for."""
    method, path = BIGQUERY_GRANTS[step]

    def matching(request: Request) -> bool:
        return request.method == method and path in request.path

    service.fail(10**6, matching, Answer(403, b'{"error": {"code": 403, "message": "Access Denied"}}'))
    status, lines, _ = doctor(BIGQUERY_EMULATOR_HOST=service.url)
    assert status == 1
    assert f"BigQuery: {step}: " in fails(lines)[0]
    assert "Access Denied" in fails(lines)[0]
    assert "(the step needs: roles/bigquery." in fails(lines)[0]
