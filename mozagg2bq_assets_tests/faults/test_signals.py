"""Signals to a run's process at every kind of request that it makes, before it is answered and after."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import gettempdir

import psutil
import pytest

from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, faulty, parametrized
from mozagg2bq_assets_tests.faults.moments import REQUESTS
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, Request

ENDS_AT_ONCE, ENDS_ITSELF = signal.SIGKILL, signal.SIGINT


def signalled(
    proxy: str, matching: Callable[[Request], bool], number: signal.Signals, done: bool
) -> Callable[[Harness], AbstractContextManager[None]]:
    """Run all days in another process, and signal it at that request, before or after the server has `done` it."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        command = (sys.executable, "-m", "mozagg2bq_assets_tests.faults.child")
        arguments = (harness.s3.url, harness.bigquery.url, *map(str, harness.days))
        process = subprocess.Popen((*command, *arguments), stderr=subprocess.PIPE)
        target: HttpProxy = getattr(harness, proxy)

        def make(real: Callable[[], Answer]) -> Answer:
            if done:
                real()
            process.send_signal(number)
            if number is ENDS_AT_ONCE:
                process.wait()
                return Answer(0)
            return real()

        with faulty(target, matching, make, 1):
            _, errors = process.communicate(timeout=60)
        assert process.returncode != 0, "it was never sent"
        assert number is ENDS_AT_ONCE or b"KeyboardInterrupt" in errors
        scratch = Path(gettempdir(), f"mozagg2bq-{os.getuid()}")
        # What was killed is cleaned up by the next run's process; this one has no scratch folder.
        assert number is ENDS_AT_ONCE or [each for each in scratch.iterdir() if each.is_dir()] == []
        assert [each for each in psutil.Process().children(recursive=True) if each.name() == "pg_dump"] == []
        yield

    return inject


def _injections() -> Iterator[Injection]:
    for request, (proxy, matching) in REQUESTS.items():
        for number in (ENDS_AT_ONCE, ENDS_ITSELF):
            for done in (False, True):
                kind = f"signals: {number.name} at {request}, {'after' if done else 'before'} it is done"
                yield Injection(kind, signalled(proxy, matching, number, done), exact=True)


@pytest.mark.stress
@parametrized(list(_injections()), 5)
def test_signals(harness: Harness, injection: Injection) -> None:
    """What it has committed stays, and the next run does the rest: both runs after it are exact."""
    check(harness, injection)
