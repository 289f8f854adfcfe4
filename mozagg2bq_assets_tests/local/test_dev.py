"""`make dev` where it could not be used: one line that says what to do, and nothing is started."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local.dev import only_one, port_number
from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets_tests.helpers.wait import wait_for
from mozagg2bq_assets_tests.local.test_sharing import process

pytestmark = pytest.mark.integration

DEV = """
import sys
from pathlib import Path
from mozagg2bq_assets.local.commands import run
from mozagg2bq_assets.local.dev import main
from mozagg2bq_assets.local.stack import Stack
run(lambda: main(sys.argv[2], Stack(Path(sys.argv[1]))))
"""
# What another `make dev` has: the lock and the port.
HOLD = """
import socket, sys
from pathlib import Path
from mozagg2bq_assets.local.dev import only_one
with socket.create_server(("127.0.0.1", 0)) as server:
    with only_one(Path(sys.argv[1]), f"http://127.0.0.1:{server.getsockname()[1]}"):
        print("held", flush=True)
        input()
"""
DAGSTER = """
import os, sys
from pathlib import Path
from mozagg2bq_assets.local.dev import dagster_dev, only_one
os.environ["DAGSTER_HOME"] = sys.argv[1]
with only_one(Path(sys.argv[1]), "http://127.0.0.1:3000") as lock:
    print("held", flush=True)
    dagster_dev(int(sys.argv[2]), lock)
"""


def failed(*command: str) -> str:
    """What it writes to stderr; it has to fail by itself, and writes nothing to stdout."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as other:
        try:
            output, errors = other.communicate(timeout=30)
        finally:
            # Not SIGKILL: one that has started has to end its stack.
            other.terminate()
    assert other.returncode > 0
    assert output == ""
    return errors


def refusal(folder: Path, port: int) -> str:
    """The one line with which `make dev` on the stack of `folder` ends."""
    (line,) = failed(sys.executable, "-c", DEV, str(folder), str(port)).splitlines()
    assert {path.name for path in folder.iterdir()} <= {"dev"}
    return line


def test_second_make_dev(tmp_path: Path) -> None:
    """It says where the first one is, on whatever port it would be itself."""
    with process(HOLD, str(tmp_path)):
        url = (tmp_path / "dev").read_text()
        for port in (int(url.rpartition(":")[2]), free_port()):
            line = refusal(tmp_path, port)
            assert line == f"error: `make dev` runs here already, at {url}: open that page, or end it first"
    with only_one(tmp_path, "http://127.0.0.1:3999"):
        assert (tmp_path / "dev").read_text() == "http://127.0.0.1:3999"


def test_dagster_outlives_make_dev(tmp_path: Path) -> None:
    """A `make dev` that was killed counts as running for as long as its `dagster dev` does."""
    with process(DAGSTER, str(tmp_path), str(free_port())) as dev:
        wait_for(lambda: psutil.Process(dev.pid).children())
        (dagster,) = psutil.Process(dev.pid).children()
        dev.kill()
        dev.wait()
        try:
            with pytest.raises(UserError, match="runs here already"), only_one(tmp_path, ""):
                pass
        finally:
            os.killpg(dagster.pid, signal.SIGKILL)
    wait_for(lambda: not dagster.is_running() or dagster.status() == psutil.STATUS_ZOMBIE)
    with only_one(tmp_path, ""):
        pass


def test_port_that_is_taken(tmp_path: Path) -> None:
    """The port that it names instead is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = refusal(tmp_path, port)
    other = re.fullmatch(rf"error: port {port} is taken by another program: `make dev PORT=(\d+)` uses another", line)
    assert other is not None, line
    assert free_port(int(other[1])) == int(other[1]) != port


def test_makefile_passes_the_port_on() -> None:
    """`make dev PORT=abc` says what it may be."""
    bin_dir = Path(sys.executable).parent
    # The environment is there: nothing needs to be installed.
    line, *_ = failed("make", "--silent", "--assume-old=install", "dev", "PORT=abc", f"BIN={bin_dir}").splitlines()
    assert line == "error: PORT is 'abc'; it must be a number from 1 to 65535"


@pytest.mark.parametrize("port", ["", "abc", "0", "65536", "70000", "-1", "3000.0", "30 00", "9" * 5000])
def test_port_that_is_none(port: str) -> None:
    """One line that says what it may be."""
    with pytest.raises(UserError, match="it must be a number from 1 to 65535"):
        port_number(port)
