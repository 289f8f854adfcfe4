"""What is sent to BigQuery, against Google's own description of its API: an emulator takes what the service refuses."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from googleapiclient import discovery_cache

from mozagg2bq_assets.pipeline.report import reports
from mozagg2bq_assets_tests.faults.test_transient import run, warehouse_through
from mozagg2bq_assets_tests.helpers.proxies import HttpProxy, Request
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

API: dict[str, Any] = json.loads(
    (Path(discovery_cache.__file__).parent / "documents" / "bigquery.v2.json").read_text("utf-8")
)
# A parameter of transport, and the one of an upload's later requests.
TRANSPORT = {"uploadType", "upload_id", "prettyPrint", "alt"}


def methods() -> Iterator[dict[str, Any]]:
    """Every method of the service."""
    for resource in API["resources"].values():
        yield from resource["methods"].values()


def method_of(request: Request) -> dict[str, Any]:
    """The method that a request calls. Raises AssertionError for a path that the service does not have."""
    path = urlsplit(request.path).path.removeprefix("/upload").removeprefix(API["basePath"])
    for method in methods():
        pattern = re.sub(r"\{\w+\}", "[^/]+", method["flatPath"])
        if method["httpMethod"] == request.method and re.fullmatch(pattern, path):
            return method
    raise AssertionError(f"BigQuery has no {request.method} {path}")


def faults(value: Any, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """What is wrong with a value of a request's body: fields and enumerated values that are not in the schema."""
    if "$ref" in schema:
        yield from faults(value, API["schemas"][schema["$ref"]], where)
    elif isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, inner in value.items():
            known = properties.get(name, schema.get("additionalProperties"))
            if known is None:
                yield f"{where}.{name}: no such field"
            else:
                yield from faults(inner, known, f"{where}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from faults(inner, schema["items"], f"{where}[]")
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"


def check(request: Request) -> Iterator[str]:
    """What the service would not understand."""
    if request.method == "PUT" and "upload_id=" in request.path:
        return  # the bytes of a file
    method = method_of(request)
    known = method.get("parameters", {}).keys() | API["parameters"].keys() | TRANSPORT
    for name in parse_qs(urlsplit(request.path).query).keys() - known:
        yield f"{method['id']}: no parameter {name}"
    if request.body:
        for fault in faults(json.loads(request.body), method["request"]):
            yield f"{method['id']}: {fault}"


def test_every_request(pipeline: Pipeline, service: HttpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loads, counts, content sums: paths, parameters, fields and enumerated values."""
    warehouse = warehouse_through(service, pipeline.warehouse)
    assert {result.error for result in run(pipeline, tmp_path, warehouse=warehouse)} == {None}
    monkeypatch.setattr("mozagg2bq_assets.pipeline.report.open_warehouse", lambda _: warehouse)
    list(reports([TYPE], DAYS, count_source=True, announce=lambda _: None))
    called = {method_of(request)["id"] for request in service.requests if request.method != "PUT"}
    assert called >= {
        "bigquery.datasets.get",
        "bigquery.datasets.insert",
        "bigquery.tables.get",
        "bigquery.tables.insert",
        "bigquery.jobs.insert",
    }
    assert [fault for request in service.requests for fault in check(request)] == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"configuration": {"load": {"sourceFormat": "PARQUET", "writeDisposition": "REPLACE"}}}, None),
        ({"configuration": {"load": {"sourceFromat": "PARQUET"}}}, ".configuration.load.sourceFromat: no such field"),
        ({"configuration": {"load": {"schema": {"fields": [{"nmae": "x"}]}}}}, ".fields[].nmae: no such field"),
    ],
)
def test_the_check_finds_faults(body: dict[str, Any], fault: str | None) -> None:
    """It can fail. Where Google writes values in prose only, as for `writeDisposition`, nothing is checked."""
    request = Request("POST", "/upload/bigquery/v2/projects/p/jobs?uploadType=resumable", json.dumps(body).encode())
    found = list(check(request))
    assert (found == []) if fault is None else found[0].endswith(fault)
    with pytest.raises(AssertionError, match="BigQuery has no GET"):
        method_of(Request("GET", "/bigquery/v2/projects/p/nothing", b""))
