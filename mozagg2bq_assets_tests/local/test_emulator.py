"""The BigQuery emulator answers the stack's own clients, and nobody else: it runs SQL that reads and writes files."""

import os
from pathlib import Path

import pytest
import requests
from google.cloud import bigquery

from mozagg2bq_assets.bigquery.warehouse import Warehouse


@pytest.fixture
def url(warehouse: Warehouse) -> str:
    """Where a query is asked."""
    return f"{os.environ['BIGQUERY_EMULATOR_HOST']}/bigquery/v2/projects/local/queries"


@pytest.fixture
def token(stack: object) -> str:
    """What the stack's clients get with their service account."""
    answer = requests.post(f"{os.environ['BIGQUERY_EMULATOR_HOST']}/token", timeout=10)
    return str(answer.json()["access_token"])


def ask(url: str, query: str, headers: dict[str, str]) -> int:
    """The status of the answer."""
    body = {"query": query, "useLegacySql": False}
    return requests.post(url, json=body, headers=headers, timeout=30).status_code


def test_who_is_answered(url: str, token: str, tmp_path: Path) -> None:
    """Only who has a token, and asks neither from a page nor by another name of this host."""
    ours = {"Authorization": f"Bearer {token}"}
    port = url.split(":")[2].split("/")[0]
    assert ask(url, "SELECT 1", ours) == 200
    write = f"COPY (SELECT 1) TO '{tmp_path}/written'"
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer local"}, 401),
        ({**ours, "Origin": "https://page.invalid"}, 403),
        ({**ours, "Origin": "null"}, 403),
        ({**ours, "Host": f"page.invalid:{port}"}, 403),
    ):
        assert ask(url, write, headers) == status, headers
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM read_csv_auto('{secret}')",
        "COPY (SELECT 1) TO '{written}'",
        "EXPORT DATA OPTIONS (uri='file://{written}', format='CSV') AS SELECT 1",
        "ATTACH '{written}'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "INSTALL httpfs",
    ],
)
def test_files_of_this_machine(url: str, token: str, tmp_path: Path, statement: str) -> None:
    """Whoever has a token reads and writes none but the emulator's own."""
    secret, written = tmp_path / "secret", tmp_path / "written"
    secret.write_text("a secret")
    query = statement.format(secret=secret, written=written)
    headers = {"Authorization": f"Bearer {token}"}
    answer = requests.post(url, json={"query": query, "useLegacySql": False}, headers=headers, timeout=30)
    assert "a secret" not in answer.text
    assert answer.status_code != 200 or "error" in answer.text
    assert not written.exists()


@pytest.mark.parametrize("headers", [{"Origin": "https://page.invalid"}, {"Host": "page.invalid"}])
def test_no_page_gets_a_token(url: str, headers: dict[str, str]) -> None:
    """Nor does one whose name has been made to lead here."""
    answer = requests.post(url.split("/bigquery")[0] + "/token", headers=headers, timeout=10)
    assert (answer.status_code, "access_token" in answer.text) == (403, False)


def test_the_client_is_answered(warehouse: Warehouse) -> None:
    """The official client gets its token by itself."""
    assert isinstance(warehouse.client, bigquery.Client)
    assert [row.values() for row in warehouse.client.query("SELECT 1").result()] == [(1,)]
