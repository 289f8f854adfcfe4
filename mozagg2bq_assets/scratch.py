"""Local disk for the files of a run or a task: a scratch folder that goes with the process that made it.

The kernel says whose a folder is: it takes a lock back when its holder dies.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes when the block ends; those of this user's processes that were killed go first."""
    root = Path(gettempdir()) / f"mozagg2bq-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        # Or another process could take the new folder for abandoned before it is locked.
        with _locked(root):
            for path in root.iterdir():
                # Somebody works in it, or has just removed it.
                with suppress(BlockingIOError, FileNotFoundError), _locked(path, fcntl.LOCK_NB):
                    shutil.rmtree(path)
            folder = Path(mkdtemp(dir=root))
            stack.enter_context(_locked(folder))
        stack.callback(shutil.rmtree, folder)  # while it is still locked
        yield folder


@contextmanager
def _locked(folder: Path, flags: int = 0) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError where LOCK_NB is given and somebody else holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)
