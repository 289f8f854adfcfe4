"""Local folders of runs: gone with the run, however it ends."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
