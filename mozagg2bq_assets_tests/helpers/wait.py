"""Waiting in tests for what happens elsewhere."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta


def wait_for(condition: Callable[[], object], seconds: float = 60, pause: float = 0.05) -> None:
    """Until it is so, which is looked at after every pause; fails after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds} seconds"
        time.sleep(pause)


def wait_for_midnight(minutes: float) -> None:
    """Until it is past midnight (UTC), if that is nearer than so many minutes.

    For tests with data of yesterday, which has to stay yesterday until they end.
    """
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    if midnight - now < timedelta(minutes=minutes):
        time.sleep((midnight - now).total_seconds() + 1)
