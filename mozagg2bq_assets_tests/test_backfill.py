"""Backfills on a real `dagster dev`, launched by the command."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
import requests

from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.reconcile import Range, reconcile
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.warehouse.bigquery import Warehouse

START, END = date(2019, 12, 1), date(2019, 12, 11)
MISSING, DAMAGED = date(2019, 12, 4), date(2019, 12, 7)
START_SECONDS = 120


@pytest.fixture
def dagster_url(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse, tmp_path: Path) -> Iterator[str]:
    """`dagster dev` with a home of its own, over a source, a lake and a dataset of the test's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    command = (sys.executable, "-m", "dagster", "dev", "--port", str(port), "--workspace", str(ROOT / "workspace.yaml"))
    log = (tmp_path / "dev.log").open("wb")
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "DAGSTER_HOME": str(tmp_path)}, stdout=log, stderr=log
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                requests.get(f"{url}/server_info", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        log.close()


def backfill(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = (str(Path(sys.executable).with_name("mozagg2bq")), "backfill", "--url", url, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)


def test_twenty_partitions(
    dagster_url: str, administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse
) -> None:
    """Both types, one day missing and one damaged: all others are in BigQuery; once mended, that one too."""
    sample.create_update_dates(administrator)
    for aggregate_type in AggregateType:
        for day in Range(START, END):
            if day != MISSING:
                for _ in sample.seed_day(administrator, aggregate_type, day, 0.0001):
                    pass
    table = f"build_id_nightly_73_{DAMAGED:%Y%m%d}"
    administrator.execute(f"ALTER TABLE {table} ADD more int")

    result = backfill(dagster_url, "--start", str(START), "--end", str(END))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "COMPLETED_FAILED: 19 of 20 partitions done, 1 failed" in result.stderr
    assert warehouse.count_days(AggregateType.SUBMISSION_DATE).keys() == set(Range(START, END)) - {MISSING}
    assert warehouse.count_days(AggregateType.BUILD_ID).keys() == set(Range(START, END)) - {MISSING, DAMAGED}

    unknown = backfill(dagster_url, "--cancel", "nonesuch")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1), unknown.stderr

    administrator.execute(f"ALTER TABLE {table} DROP more")
    mended = ("--start", str(DAMAGED), "--end", str(DAMAGED + timedelta(days=1)), "--aggregate-type", "build_id")
    result = backfill(dagster_url, *mended)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 of 1 partitions done, 0 failed" in result.stdout
    for aggregate_type in AggregateType:
        report = reconcile(administrator, lake, warehouse, aggregate_type, Range(START, END, counted=True))
        assert report.differences == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start", "2019-12-01"), "--start and --end are needed"),
        (("--start", "2019-12-02", "--end", "2019-12-02"), "is not after --start"),
        (("--start", "1999-12-01", "--end", "1999-12-02"), "is outside the partitions"),
        (("--start", "2019-12-01", "--end", "2019-12-02"), "no Dagster answers at http://127.0.0.1:1"),
        (("--cancel", "nonesuch"), "no Dagster answers at http://127.0.0.1:1"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], message: str) -> None:
    """One line that says what is wrong."""
    result = backfill("http://127.0.0.1:1", *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
