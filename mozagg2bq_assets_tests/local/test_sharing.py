"""Who uses a stack, and when it ends: `make dev`, `make demo` and a stack started by hand, side by side."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import demo
from mozagg2bq_assets.local.dev import checked_port, main, only_one
from mozagg2bq_assets.local.stack import STATE_DIR, Stack

pytestmark = pytest.mark.integration

USE = """
import sys
from pathlib import Path
from mozagg2bq_assets.local.stack import Stack, running_stack
with running_stack(Stack(Path(sys.argv[1]))):
    print("up", flush=True)
    input()
"""
HOLD = """
import sys
from pathlib import Path
from mozagg2bq_assets.local.dev import only_one
with only_one(Path(sys.argv[1]), "http://127.0.0.1:3000"):
    print("held", flush=True)
    input()
"""


@contextmanager
def process(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has got so far as to print a line, until the block ends."""
    command = (sys.executable, "-c", code, str(folder))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline()
        yield other
        leave(other)


def leave(other: subprocess.Popen[str]) -> None:
    """Have it end its block, and itself."""
    if other.poll() is None:
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
    assert other.wait(60) == 0


@pytest.fixture
def idle() -> Iterator[Stack]:
    """A stack of the test's own that nobody has started."""
    with TemporaryDirectory(prefix="mozagg2bq-test-") as folder:
        stack = Stack(Path(folder))
        yield stack
        stack.down()


def is_up(stack: Stack) -> bool:
    """Whether all three servers run."""
    return None not in stack.status().values()


def test_the_last_user_ends_it(idle: Stack) -> None:
    """Who leaves first leaves it running, with what is in it; nothing runs once the last has left."""
    with process(USE, idle.state_dir) as first:
        with idle.administrator() as connection:
            connection.execute("CREATE TABLE precious ()")
        with process(USE, idle.state_dir):
            leave(first)
            assert is_up(idle)
            with idle.administrator() as connection:
                connection.execute("SELECT FROM precious")
        assert not any(idle.status().values())


def test_a_stack_started_by_hand_stays(idle: Stack) -> None:
    """`local up` outlives its users; `local down` ends it."""
    idle.up()
    idle.keep()
    with process(USE, idle.state_dir):
        pass
    assert is_up(idle)
    idle.down()
    assert not any(idle.status().values())
    with process(USE, idle.state_dir):
        pass
    assert not any(idle.status().values())


def test_the_demo_has_a_stack_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that of `make dev` nor one that is there afterwards."""
    used: list[Path] = []

    def note(stack: Stack) -> None:
        used.append(stack.state_dir)
        raise UserError("enough")

    monkeypatch.setattr(demo, "running_stack", note)
    with pytest.raises(UserError, match="enough"):
        demo.main()
    (folder,) = used
    assert folder != STATE_DIR
    assert not folder.exists()


def test_second_make_dev(tmp_path: Path) -> None:
    """It says where the first one is, and starts nothing."""
    with process(HOLD, tmp_path):
        with pytest.raises(UserError, match=r"runs here already, at http://127\.0\.0\.1:3000: open that page"):
            main("3999", Stack(tmp_path))
        assert {path.name for path in tmp_path.iterdir()} == {"dev"}
    with only_one(tmp_path, "http://127.0.0.1:3999"):
        assert (tmp_path / "dev").read_text() == "http://127.0.0.1:3999"


def test_port_that_is_taken(tmp_path: Path) -> None:
    """`make dev` stops before it starts anything, and says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = subprocess.run(
            (sys.executable, "-m", "mozagg2bq_assets.local.dev", str(port)),
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ,
        )
    assert result.returncode == 1
    assert result.stderr == (
        f"error: port {port} cannot be used (Address already in use): `make dev PORT={port + 1}` takes another\n"
    )


@pytest.mark.parametrize("port", ["", "abc", "0", "70000", "-1"])
def test_port_that_is_none(port: str) -> None:
    """One line that says what it may be."""
    with pytest.raises(UserError, match="a number from 1 to 65535"):
        checked_port(port)
