"""What a terminal sees: how far a command is, colours, completion."""

import os
import pty
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

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


@pytest.mark.usefixtures("warehouse", "administrator", "lake")
@pytest.mark.parametrize(("no_color", "ok"), [("", "\x1b[32mok\x1b[0m  "), ("1", "ok  ")])
def test_colours(no_color: str, ok: str) -> None:
    """On a terminal, unless somebody wants none; and elsewhere none."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NO_COLOR": no_color}
    subprocess.run((COMMAND, "doctor"), stdout=theirs, check=False, env=environment)
    shown = os.read(ours, 2**16).decode()
    os.close(ours)
    os.close(theirs)
    assert ok in shown
    assert "\x1b" not in subprocess.run((COMMAND, "doctor"), capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ba", "backfill"),
        ("lake ''", "list verify restore clean"),
        ("verify --aggregate-type s", "submission_date"),
    ],
)
def test_completion(words: str, completed: str) -> None:
    """As bash asks for it, by what the help says."""
    script = subprocess.run(
        (COMMAND,), capture_output=True, text=True, check=True, env={**os.environ, "_MOZAGG2BQ_COMPLETE": "bash_source"}
    ).stdout
    ask = f"""{script}
        COMP_WORDS=(mozagg2bq {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        _mozagg2bq_completion mozagg2bq; echo "${{COMPREPLY[@]}}" """
    environment = {**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}
    answer = subprocess.run(("bash", "-c", ask), capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.strip() == completed
