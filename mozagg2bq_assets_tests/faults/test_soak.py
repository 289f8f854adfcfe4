"""Five hundred small partitions, a hundred at a time: what Dagster's processes hold does not grow with them."""

from collections.abc import Iterator
from datetime import date, timedelta
from threading import Event, Thread
from typing import NamedTuple

import psutil
import pytest
from hypothesis import settings

from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets_tests.helpers.backfills import Backfills, backfills
from mozagg2bq_assets_tests.helpers.wait import wait_for

WAVES, DAYS_A_WAVE = 5, 50
DAYS = DayRange(date(2019, 6, 1), date(2019, 6, 1) + timedelta(days=WAVES * DAYS_A_WAVE))
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"
# Python's and SQLite's caches fill for some time.
MEMORY_GROWTH = 1.1


class Held(NamedTuple):
    """After a backfill: what Dagster's processes and the machine hold, and the most that a run's process took."""

    megabytes: int
    descriptors: int
    temporary_files: int
    sessions: int
    run_megabytes: int


def megabytes(processes: list[psutil.Process]) -> list[int]:
    """Resident memory of each that is still there."""
    found = []
    for process in processes:
        try:
            found.append(process.memory_info().rss // 2**20)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.fixture
def watched() -> Iterator[Backfills]:
    """All days, and Dagster."""
    with backfills(DAYS, 10) as watched:
        yield watched


def wave(watched: Backfills, days: DayRange) -> Held:
    """Backfill these days, wait for the last run's process to end, and look."""
    ended, peaks = Event(), [0]

    def watch() -> None:
        while not ended.wait(0.2):
            peaks.append(max(megabytes(watched.processes()[1]), default=0))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        with watched.start(days) as backfill:
            output, _ = backfill.communicate(timeout=1200)
        assert backfill.returncode == 0, output
        wait_for(lambda: not watched.processes()[1])
    finally:
        ended.set()
        watcher.join()
    stay = watched.processes()[0]
    with watched.stack.administrator() as connection:
        (sessions,) = connection.execute(SESSIONS).fetchone() or (0,)
    return Held(
        sum(megabytes(stay)),
        sum(process.num_fds() for process in stay),
        sum(1 for path in watched.temporary.rglob("*") if path.is_file()),
        int(sessions),
        max(peaks),
    )


@pytest.mark.stress
@pytest.mark.skipif(settings().max_examples != 500, reason="some minutes: the long profile runs it")
def test_soak(watched: Backfills) -> None:
    """The second wave has what the last one has: memory, descriptors, temporary files, sessions."""
    starts = [DAYS.start + timedelta(days=DAYS_A_WAVE * n) for n in range(WAVES)]
    waves = [wave(watched, DayRange(start, start + timedelta(days=DAYS_A_WAVE))) for start in starts]
    print(*waves, sep="\n")
    second, last = waves[1], waves[-1]
    assert [held.sessions for held in waves] == [0] * WAVES
    assert last.megabytes <= MEMORY_GROWTH * second.megabytes
    assert last.run_megabytes <= MEMORY_GROWTH * second.run_megabytes
    assert last.descriptors <= second.descriptors
    assert last.temporary_files <= second.temporary_files
    assert watched.loaded() == 2 * len(DAYS)
