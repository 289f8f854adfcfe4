"""What compose.yaml starts, as processes on the embedded stack: a backfill while each of them is restarted."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from hypothesis import settings

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack, isolated
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets_tests.helpers.compose import Compose, composed

TYPE = AggregateType.BUILD_ID
DAYS = DayRange(date(2019, 12, 1), date(2019, 12, 25))
DAYS_ARGUMENTS = ("--aggregate-type", str(TYPE), "--start", str(DAYS.start), "--end", str(DAYS.end))


@pytest.fixture
def folder() -> Iterator[Path]:
    """The state of a stack of the test's own."""
    with TemporaryDirectory(prefix="compose-") as name:
        yield Path(name)


@pytest.fixture
def compose(folder: Path) -> Iterator[Compose]:
    """All services, on sample days that a backfill takes in some runs."""
    stack = Stack(folder)
    environment = isolated(stack.up()) | {"PARTITIONS_START": str(DAYS.start), "PARTITIONS_PER_RUN": "4"}
    try:
        with stack.administrator() as connection:
            sample.create_update_dates(connection)
            for day in DAYS:
                for _ in sample.seed_partition(connection, Partition(TYPE, day), 0.001):
                    pass
        with composed(stack, environment, folder / "compose") as compose:
            compose.start("code", "webserver", "daemon")
            yield compose
    finally:
        stack.down()


def mozagg2bq(compose: Compose, *arguments: str) -> subprocess.Popen[str]:
    """`docker compose run --rm mozagg2bq …`"""
    return subprocess.Popen(
        compose.command("mozagg2bq", *arguments),
        env=compose.variables("mozagg2bq"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def loaded(lake: Path) -> int:
    """Manifests of loads in the lake."""
    return sum(1 for _ in (lake / "mozagg2bq" / "bigquery_table").glob("*/*/manifest.json"))


def wait_for(backfill: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Until it is so. The backfill must not have ended."""
    deadline = time.monotonic() + 300
    while not condition():
        assert backfill.poll() is None, backfill.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def problems(compose: Compose) -> str:
    """What the daemon has complained of, and the code location's runs."""
    lines = re.findall(r".*(?:ERROR|Error|WARNING|FAILURE|failed).*\n", compose.log("daemon") + compose.log("code"))
    return "".join(lines)


@pytest.mark.stress
@pytest.mark.skipif(settings().max_examples != 500, reason="seven minutes: the long profile runs it")
def test_restarts(compose: Compose, folder: Path) -> None:
    """Every partition is loaded, runs that were lost are repeated, and the logs of runs are in S3."""
    lake = folder / "s3" / "lake"
    with mozagg2bq(compose, "backfill", *DAYS_ARGUMENTS, "--url", "http://webserver:3000") as backfill:
        try:
            for part, service in enumerate(("daemon", "code", "webserver", "code"), 1):
                wait_for(backfill, partial(lambda wanted: loaded(lake) >= wanted, part * len(DAYS) // 6 - 1))
                compose.stop(service)
                compose.start(service)
            output, _ = backfill.communicate(timeout=900)
        finally:
            backfill.kill()
    assert backfill.returncode == 0, output + problems(compose)
    assert f"{len(DAYS)} of {len(DAYS)} partitions done, 0 failed" in output
    with mozagg2bq(compose, "verify", "--content", *DAYS_ARGUMENTS) as verify:
        report, _ = verify.communicate(timeout=100)
    assert verify.returncode == 0, report
    storage = psycopg.connect(host=str(folder / "postgres"), dbname="dagster", user="postgres")
    with storage:
        lost = "SELECT count(*) FROM event_logs WHERE event LIKE '%The code location was restarted%'"
        assert storage.execute(lost).fetchone() != (0,)
    logs = [path.read_text() for path in (lake / "dagster-compute-logs").rglob("*.err")]
    assert any("STEP_SUCCESS" in log for log in logs)
    # Nothing is written there: containers are read-only.
    assert [path.name for path in compose.home.iterdir()] == ["dagster.yaml"]
