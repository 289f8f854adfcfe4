"""Local folders of runs: gone with the run, however it ends."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.scratch import scratch_folder

HOLD = """
from mozagg2bq_assets.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").touch()
    print(folder, flush=True)
    input()
"""


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """A folder stays while its process lives, and goes with the next run once that was killed."""
    command = (sys.executable, "-c", HOLD)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        with scratch_folder() as ours:
            assert (theirs / "file").exists()
            assert ours.is_dir()
        assert not ours.exists()
        process.kill()
        process.wait()
        assert (theirs / "file").exists()
        with scratch_folder():
            assert not theirs.exists()


def test_many_at_once() -> None:
    """Those that come while others go take nothing from each other."""

    def work(number: int) -> str:
        with scratch_folder() as folder:
            (folder / "file").write_text(str(number))
            return (folder / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(1000))) == [str(number) for number in range(1000)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's folders lie, in a TMPDIR of the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"mozagg2bq-{os.getuid()}"


def link(root: Path, target: Path) -> None:
    """A link to somebody's folder."""
    root.symlink_to(target)


def open_to_all(root: Path, _: Path) -> None:
    """A folder that others may write to."""
    root.mkdir()
    root.chmod(0o777)


def of_somebody_else(root: Path, _: Path) -> None:
    """Another user's folder."""
    root.mkdir(mode=0o700)
    os.chown(root, 12345, -1)


def file(root: Path, _: Path) -> None:
    """No folder at all."""
    root.touch()


@pytest.mark.parametrize("made", [link, open_to_all, of_somebody_else, file])
def test_a_folder_that_is_not_ours_alone(root: Path, tmp_path: Path, made: Callable[[Path, Path], None]) -> None:
    """Nothing is made or removed there, and the message says what to do."""
    target = tmp_path / "somebody's"
    (target / "precious").mkdir(parents=True)
    if made is of_somebody_else and os.getuid() != 0:
        pytest.skip("only root can make it")
    made(root, target)
    with pytest.raises(UserError, match="remove it, or set TMPDIR"), scratch_folder():
        pass
    assert (target / "precious").exists()


def test_what_is_no_folder_of_ours(root: Path, tmp_path: Path) -> None:
    """Links and files among our folders stay, and so does what links lead to."""
    target = tmp_path / "somebody's"
    (target / "precious").mkdir(parents=True)
    root.mkdir(mode=0o700)
    (root / "link").symlink_to(target)
    (root / "file").touch()
    (root / "abandoned").mkdir()
    with scratch_folder():
        pass
    assert {path.name for path in root.iterdir()} == {"link", "file"}
    assert (target / "precious").exists()
