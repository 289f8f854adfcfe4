"""Local disk for the files of a run or a task: a scratch folder that its block removes.

After a kill the next process removes it: the kernel takes a folder's lock back when its holder dies. A partition's
files are removed earlier, in `pipeline.ingest`.
"""

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from mozagg2bq_assets.errors import UserError


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder removed when the block ends. First removes folders left by this user's killed processes.

    They lie in one folder below TMPDIR. Raises UserError where that is not this user's alone.
    """
    root = _root()
    with ExitStack() as stack:
        # Or another process could take the new folder for abandoned before it is locked.
        with _locked(root):
            for entry in os.scandir(root):
                # Skip a folder that another process has locked or has just removed, and the lock files of
                # `machine_lock`.
                with suppress(BlockingIOError, FileNotFoundError, NotADirectoryError), _locked(entry, fcntl.LOCK_NB):
                    shutil.rmtree(entry)
            folder = Path(mkdtemp(dir=root))
            stack.enter_context(_locked(folder))
        stack.callback(shutil.rmtree, folder)  # while it is still locked
        yield folder


def _root() -> Path:
    """The folder of all of this user's processes. Anybody can make one of that name where TMPDIR is shared."""
    root = Path(gettempdir()) / f"mozagg2bq-{os.getuid()}"
    with suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise UserError(
            f"{root} is not a folder that this user alone can use: remove it, or set TMPDIR to another place"
        )
    return root


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Hold a lock of that name, which one process of this user and TMPDIR has at a time; wait for it."""
    with (_root() / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _locked(folder: os.PathLike[str], flags: int = 0) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError where LOCK_NB is given and somebody else holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        yield
    finally:
        os.close(descriptor)
