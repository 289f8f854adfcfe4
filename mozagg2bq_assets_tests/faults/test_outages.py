"""A backfill that nobody watches: services go away and come back, workers are killed, and every partition is done."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import date, timedelta
from functools import partial

import pytest
from hypothesis import settings

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.postgres import PostgresServer
from mozagg2bq_assets.local.services import Service
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets_tests.helpers.backfills import Backfills, backfills
from mozagg2bq_assets_tests.helpers.wait import wait_for

LONG = settings().max_examples == 500
# A hundred partitions, or all of the history: tables are tiny.
DAYS = DayRange(date(2015, 6, 1), date(2020, 4, 1)) if LONG else DayRange(date(2019, 12, 1), date(2020, 1, 20))
OUTAGE_SECONDS = 120 if LONG else 10
SAMPLE = DayRange(DAYS.start, DAYS.start + timedelta(days=3))
KILLED = 2


@pytest.fixture
def watched() -> Iterator[Backfills]:
    """All days, and Dagster."""
    with backfills(DAYS, 30 if LONG else 10) as watched:
        yield watched


def end_some_run(watched: Backfills) -> None:
    """Kill the process of one run."""
    wait_for(lambda: watched.processes()[1], 300)
    for worker in watched.processes()[1][:1]:
        worker.send_signal(signal.SIGKILL)


def has_loaded(watched: Backfills, backfill: subprocess.Popen[str], wanted: int) -> bool:
    """Whether so many partitions are loaded. The backfill must not have ended: what is to come would be too late."""
    assert backfill.poll() is None, backfill.communicate()[0]
    return watched.loaded() >= wanted


@pytest.mark.stress
def test_nobody_watches(watched: Backfills) -> None:
    """Each service is away for a while, PostgreSQL restarts, and the processes of two runs are killed."""
    stack, everything = watched.stack, 2 * len(DAYS)
    outages: list[tuple[Service | PostgresServer, float]] = [
        (stack.s3, OUTAGE_SECONDS),
        (stack.bigquery, OUTAGE_SECONDS),
        (stack.postgres, OUTAGE_SECONDS),
        (stack.postgres, 0),  # restarts
    ]
    with watched.start(DAYS) as backfill:
        try:
            for done, (service, seconds) in enumerate(outages, 1):
                # Spread over the backfill. Looking lists thousands of files.
                enough = partial(has_loaded, watched, backfill, done * everything // 8)
                wait_for(enough, 3600 if LONG else 300, pause=0.5)
                service.stop()
                time.sleep(seconds)
                stack.up()
                if done <= KILLED:
                    end_some_run(watched)
            output, _ = backfill.communicate(timeout=3 * 3600 if LONG else 400)
        finally:
            backfill.kill()
    assert backfill.returncode == 0, output + "".join(re.findall(r".*(?:ERROR|Error).*\n", watched.log))
    assert f"{everything} of {everything} partitions done, 0 failed" in output
    result = watched.verify(SAMPLE)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(str(len(sample.EDGE_ROWS))) >= 2 * len(SAMPLE)
