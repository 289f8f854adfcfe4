"""A backfill that nobody watches: services go away and come back, workers are killed, and every partition is done."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
from hypothesis import settings

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.postgres import PostgresServer
from mozagg2bq_assets.local.services import Service
from mozagg2bq_assets.local.stack import Stack, isolated
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets_tests.helpers.dagster import LOG, dagster_dev
from mozagg2bq_assets_tests.helpers.wait import wait_for

LONG = settings().max_examples == 500
# A hundred partitions, or all of the history: tables are tiny.
DAYS = DayRange(date(2015, 6, 1), date(2020, 4, 1)) if LONG else DayRange(date(2019, 12, 1), date(2020, 1, 20))
OUTAGE_SECONDS = 120 if LONG else 10
SAMPLE = DayRange(DAYS.start, DAYS.start + timedelta(days=3))
KILLED = 2
BIN = Path(sys.executable).parent


class Watched:
    """A stack of the test's own, with Dagster on it and a backfill under way."""

    def __init__(self, stack: Stack, environment: dict[str, str], url: str, dagster: psutil.Process) -> None:
        self.stack, self.environment, self.url, self.dagster = stack, environment, url, dagster

    def mozagg2bq(self, *arguments: str) -> tuple[str, ...]:
        """A command line."""
        return (str(BIN / "mozagg2bq"), *arguments)

    def workers(self) -> list[psutil.Process]:
        """The processes of runs."""
        found = []
        for process in self.dagster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # or a zombie
                if "spawn_main" in " ".join(process.cmdline()):
                    found.append(process)
        return found


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Sample days of both types, a table a day, and a webserver with its daemon."""
    with TemporaryDirectory(prefix="outages-") as name:
        stack = Stack(Path(name))
        environment = isolated(stack.up()) | {
            "PARTITIONS_START": str(DAYS.start),
            "PARTITIONS_PER_RUN": "30" if LONG else "10",
        }
        try:
            with stack.administrator() as connection:
                sample.create_update_dates(connection)
                for aggregate_type in AggregateType:
                    for day in DAYS:
                        table = f"{aggregate_type}_nightly_73_{day:%Y%m%d}"
                        sample.create_table(connection, table)
                        sample.insert(connection, table, sample.EDGE_ROWS)
            with dagster_dev(Path(name), environment) as (url, pid):
                yield Watched(stack, environment, url, psutil.Process(pid))
        finally:
            stack.down()


def loaded(watched: Watched) -> int:
    """Manifests of loads in the lake."""
    folder = watched.stack.state_dir / "s3" / "lake" / "mozagg2bq" / "bigquery_table"
    return sum(1 for _ in folder.glob("*/*/manifest.json"))


def end_some_worker(watched: Watched) -> None:
    """Kill the process of one run."""
    wait_for(watched.workers, 300)
    for worker in watched.workers()[:1]:
        worker.send_signal(signal.SIGKILL)


@pytest.mark.stress
def test_nobody_watches(watched: Watched) -> None:
    """Each service is away for a while, PostgreSQL restarts, and the processes of two runs are killed."""
    stack, everything = watched.stack, 2 * len(DAYS)
    outages: list[tuple[Service | PostgresServer, float]] = [
        (stack.s3, OUTAGE_SECONDS),
        (stack.bigquery, OUTAGE_SECONDS),
        (stack.postgres, OUTAGE_SECONDS),
        (stack.postgres, 0),  # restarts
    ]
    with subprocess.Popen(
        watched.mozagg2bq("backfill", "--start", str(DAYS.start), "--end", str(DAYS.end), "--url", watched.url),
        env=watched.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as backfill:
        try:
            for done, (service, seconds) in enumerate(outages, 1):
                # Spread over the backfill.
                wait_for(partial(has_loaded, watched, backfill, done * everything // 8), 3600 if LONG else 300)
                service.stop()
                time.sleep(seconds)
                stack.up()
                if done <= KILLED:
                    end_some_worker(watched)
            output, _ = backfill.communicate(timeout=3 * 3600 if LONG else 400)
        finally:
            backfill.kill()
    log = (stack.state_dir / LOG).read_text()
    assert backfill.returncode == 0, output + "".join(re.findall(r".*(?:ERROR|Error).*\n", log))
    assert f"{everything} of {everything} partitions done, 0 failed" in output
    verify = watched.mozagg2bq("verify", "--content", "--start", str(SAMPLE.start), "--end", str(SAMPLE.end))
    result = subprocess.run(verify, env=watched.environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(str(len(sample.EDGE_ROWS))) >= 2 * len(SAMPLE)


def has_loaded(watched: Watched, backfill: subprocess.Popen[str], wanted: int) -> bool:
    """Whether so many partitions are loaded. The backfill must not have ended: what is to come would be too late."""
    assert backfill.poll() is None, backfill.communicate()[0]
    return loaded(watched) >= wanted
