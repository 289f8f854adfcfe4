"""How far a command is: lines where stderr is a file, a bar on a terminal, and nothing with `--quiet`."""

import os
import pty
import subprocess
import time
from collections.abc import Iterator

import click
import pytest

from mozagg2bq_assets.cli.options import QUIET
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets_tests.helpers.cli import COMMAND


@pytest.fixture
def context() -> Iterator[click.Context]:
    """A command's context."""
    with click.Context(click.Command("command")) as context:
        yield context


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines come often."""
    monkeypatch.setattr("mozagg2bq_assets.cli.progress.LINE_SECONDS", 0.02)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stderr has got, once there is something."""
    said = ""
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.02)
        said += capsys.readouterr().err
    return said.splitlines()


@pytest.mark.usefixtures("_often", "context")
def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One at a time, with the share that is done; also while nothing is told."""
    with progress("dumping", 80) as tell:
        assert lines(capsys)[0] == "dumping: at work"
        tell(32, "32 of 80 tables")
        time.sleep(0.1)
        assert lines(capsys)[-1] == "dumping: 40%, 32 of 80 tables"
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("_often")
def test_quiet(context: click.Context, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said."""
    context.meta[QUIET] = True
    with progress("dumping", 80) as tell:
        tell(32, "32 of 80 tables")
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("warehouse", "administrator", "lake")
@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_terminal(quiet: tuple[str, ...]) -> None:
    """A bar on stderr, and the result on stdout all the same."""
    ours, theirs = pty.openpty()
    result = subprocess.run((COMMAND, "verify", *quiet), stdout=subprocess.PIPE, stderr=theirs, text=True, check=False)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    assert ("comparing" in shown.decode()) is not bool(quiet)
    assert result.stdout.splitlines()[-1] == "build_id: 0 days agree"
