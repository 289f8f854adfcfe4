"""Who uses a stack, and when it ends: `make dev`, `make demo` and a stack started by hand, side by side."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from mozagg2bq_assets.local.commands import INTERRUPTED
from mozagg2bq_assets.local.stack import STATE_DIR, Stack
from mozagg2bq_assets_tests.helpers.wait import wait_for
from mozagg2bq_assets_tests.local.test_stack import is_alive, pids

pytestmark = pytest.mark.integration

USE = """
import sys
from pathlib import Path
from mozagg2bq_assets.local.commands import run
from mozagg2bq_assets.local.stack import Stack, running_stack

def main():
    with running_stack(Stack(Path(sys.argv[1]))):
        print("up", flush=True)
        input()
    return 0

run(main)
"""


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has got so far as to print a line, until the block ends."""
    command = (sys.executable, "-c", code, *arguments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        yield other
        if other.poll() is None:
            leave(other)


def leave(other: subprocess.Popen[str]) -> None:
    """Have it end its block, and itself."""
    assert other.stdin is not None
    other.stdin.write("\n")
    other.stdin.flush()
    assert other.wait(60) == 0


def close_terminal(other: subprocess.Popen[str]) -> None:
    """Send it what it gets when its terminal is closed, twice, the second time while it ends its stack."""
    for _ in range(2):
        other.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert other.wait(60) == INTERRUPTED


@pytest.fixture
def idle() -> Iterator[Stack]:
    """A stack of the test's own that nobody has started."""
    with TemporaryDirectory(prefix="mozagg2bq-test-") as folder:
        stack = Stack(Path(folder))
        yield stack
        stack.down()


def test_the_last_user_ends_it(idle: Stack) -> None:
    """Who leaves first leaves its processes and data alone; nothing runs once the last has left, however it ends."""
    folder = str(idle.state_dir)
    with process(USE, folder) as first:
        running = pids(idle)
        with idle.administrator() as connection:
            connection.execute("CREATE TABLE precious ()")
        with process(USE, folder) as second:
            leave(first)
            assert pids(idle) == running
            with idle.administrator() as connection:
                connection.execute("SELECT FROM precious")
            close_terminal(second)
    assert not any(idle.status().values())
    assert not any(is_alive(pid) for pid in running.values())


def test_a_stack_started_by_hand_stays(idle: Stack) -> None:
    """`local up` outlives its users; after `local down` the stack ends with its last user again."""
    idle.keep()
    running = pids(idle)
    with process(USE, str(idle.state_dir)):
        pass
    assert pids(idle) == running
    idle.down()
    assert not any(idle.status().values())
    with idle.in_use():
        pass
    assert not any(idle.status().values())


def test_the_demo_has_a_stack_of_its_own(tmp_path: Path) -> None:
    """It does not so much as open that of `make dev`, and leaves nothing behind when its terminal is closed."""
    command = (sys.executable, "-m", "mozagg2bq_assets.local.demo")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        wait_for(lambda: demo.poll() is not None or list(tmp_path.glob("mozagg2bq-demo-*/bigquery.json")))
        (folder,) = tmp_path.glob("mozagg2bq-demo-*")
        running = pids(Stack(folder))
        opened = {Path(file.path) for file in psutil.Process(demo.pid).open_files()}
        assert folder / "users" in opened
        assert not any(path.is_relative_to(STATE_DIR) for path in opened)
        close_terminal(demo)
    assert not folder.exists()
    assert not any(is_alive(pid) for pid in running.values())
