"""Dagster's own command `dg`, as its projects use it: check, list, launch and dev."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.model.partitions import DayRange, Stage
from mozagg2bq_assets.settings import variables
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

DG = str(Path(sys.executable).parent / "dg")
ONE_DAY = DayRange(DAYS.start, DAYS.start + timedelta(days=1))
BAD = {"PARTITIONS_START": "2019-13-01", "MAX_RUN_HOURS": "many"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Dagster instance of the test's own."""
    monkeypatch.setenv("VIRTUAL_ENV", str(Path(sys.executable).parents[1]))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    return tmp_path


def dg(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it in the project's folder, whatever it ends with."""
    return subprocess.run((DG, *arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.integration
def test_check_defs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing set they load, and a line names what runs will miss."""
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    result = dg("check", "defs")
    assert result.returncode == 0, result.stderr
    assert "not set, so that runs which need them will fail: POSTGRES_HOST, " in result.stdout + result.stderr


@pytest.mark.integration
def test_check_defs_with_bad_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names all of them, and none of their values."""
    for name, value in BAD.items():
        monkeypatch.setenv(name, value)
    result = dg("check", "defs")
    output = result.stdout + result.stderr
    assert result.returncode != 0
    (line,) = {line for line in output.splitlines() if "errors.UserError: " in line}
    assert all(name in line for name in BAD)
    assert not any(value in output for value in BAD.values())


@pytest.mark.integration
def test_list_defs() -> None:
    """Assets, with what Dagster's pages show of them, checks, jobs and schedules."""
    result = dg("list", "defs", "--json")
    assert result.returncode == 0, result.stderr
    listed = json.loads(result.stdout)
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert {f"{TYPE}/{stage}" for stage in Stage} | {f"{TYPE}/source_tables"} <= keys
    (parquet,) = [asset for asset in listed["assets"] if asset["asset_key"] == f"{TYPE}/parquet"]
    assert sorted(parquet["kinds"]) == ["parquet", "s3"]


def test_launch(pipeline: Pipeline) -> None:
    """A day of a job."""
    result = dg("launch", "--job", f"{TYPE}_job", "--partition", str(ONE_DAY.start))
    assert result.returncode == 0, result.stderr
    assert pipeline.reconcile(ONE_DAY).differences == []


@pytest.mark.integration
def test_dev(home: Path) -> None:
    """It serves the project's assets."""
    port = free_port()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            (DG, "dev", "--port", str(port)), cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        assert "raw_dump" in _answer(port)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _answer(port: int) -> str:
    """What the webserver says of its assets, once it has loaded them."""
    query, deadline = {"query": "{ assetNodes { assetKey { path } } }"}, time.monotonic() + 90
    while time.monotonic() < deadline:
        with suppress(requests.RequestException):
            text = requests.post(f"http://127.0.0.1:{port}/graphql", json=query, timeout=10).text
            if "raw_dump" in text:
                return text
        time.sleep(0.5)
    return "nothing"
