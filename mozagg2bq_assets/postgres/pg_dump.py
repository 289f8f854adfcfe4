"""Run pg_dump as a process: build its arguments, read its messages, and end it on request."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Event

from mozagg2bq_assets.errors import DISK_IS_FULL, NO_SPACE, Cancelled, TransientError, UserError, brief
from mozagg2bq_assets.model.partitions import Partition, days_by_type
from mozagg2bq_assets.postgres.cancellation import ended_early
from mozagg2bq_assets.postgres.connection import Postgres

# For two cores. More connections need more cores, of the server and here.
JOBS = 2
LOCK_WAIT_SECONDS = 60
DEADLINE_SECONDS = 4 * 3600
# How long pg_dump may take to end its sessions on the server, before it is killed.
END_SECONDS = 5

# Asks the kernel to end this process when its parent ends, and becomes pg_dump. As a `preexec_fn` of ours it could wait
# for ever: after the fork of a process with threads, no thread is left that would give back a lock.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
os.execvp(sys.argv[1], sys.argv[1:])
"""

# Its leader and its workers write to one pipe, in pieces, so that a message may begin in the midst of a line.
_ERROR = re.compile(r"(?:error|detail|hint): .*")
# A whole statement, which says nothing that the error does not.
_STATEMENT = ("detail: Query was", "detail: Command was")

# What pg_dump and the server say where a connection was lost or could not be made; pg_dump tells no SQLSTATE.
_LOST = (
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "could not receive data",
    "could not send data",
    "conflict with recovery",
    "the database system is",
)


def run_pg_dump(
    source: Postgres,
    snapshot: str,
    partitions: Iterable[Partition],
    output: Path,
    progress: Callable[[str], None],
    cancelled: Event,
    jobs: int,
) -> None:
    """Dump the tables of those partitions into a folder, in that snapshot, and pass pg_dump's messages on.

    `jobs` connections read. It does not compress: see `compress`.

    What else the pattern matches is dumped too. Raises UserError with pg_dump's last errors (TransientError where it
    lost the server, the disk was full or a signal ended it), and Cancelled where it was ended because `cancelled` was
    set; then the folder is gone.
    """
    errors: deque[str] = deque(maxlen=3)
    process = _start([*_command(snapshot, partitions, output, jobs), source.connection_string()], source)
    too_long = Event()

    def end() -> None:
        too_long.set()
        _end(process)

    try:
        # pg_dump switches the server's statement timeout off for itself, so nothing else would end it.
        with ended_early(cancelled, end, DEADLINE_SECONDS):
            for line in process.stderr or ():
                progress(line.rstrip())
                if (match := _ERROR.search(line.rstrip())) and not match[0].startswith(_STATEMENT):
                    errors.append(match[0])
            process.wait()
    finally:
        _end(process)
        if process.returncode or cancelled.is_set():
            shutil.rmtree(output, ignore_errors=True)
    if cancelled.is_set():
        raise Cancelled
    if too_long.is_set():
        raise UserError(f"pg_dump was ended, as it took more than {DEADLINE_SECONDS // 3600} hours")
    if process.returncode:
        raise _failure(process.returncode, " ".join(errors))


def _command(snapshot: str, partitions: Iterable[Partition], output: Path, jobs: int) -> list[str]:
    return [
        "pg_dump",
        "--format=directory",
        f"--jobs={jobs}",
        "--compress=0",
        f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s",
        "--encoding=UTF8",
        "--no-password",
        "--no-sync",
        "--verbose",
        f"--file={output}",
        f"--snapshot={snapshot}",
        *(f"--table=public.{pattern}" for pattern in _patterns(partitions)),
    ]


def _patterns(partitions: Iterable[Partition]) -> list[str]:
    """A pattern for each type's tables.

    A pattern is a regular expression in which `*` is `.*`. For each of them pg_dump goes through the whole catalog, so
    that 100 names take 8 s where there are 30,000 tables.
    """
    return [
        f"{aggregate_type}_*_({'|'.join(days)})[0-9]{{0,}}" for aggregate_type, days in days_by_type(partitions).items()
    ]


def _start(command: list[str], source: Postgres) -> subprocess.Popen[str]:
    if shutil.which(command[0]) is None:
        raise UserError("pg_dump is not on PATH: install PostgreSQL's client tools, as new as the server")
    return subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", _END_WITH_PARENT, *command),
        env=source.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # of its own, so that its workers can be ended too
    )


def _end(process: subprocess.Popen[str]) -> None:
    """End pg_dump and its workers. Asked to end, they cancel on the server what they wait for there."""
    if process.poll() == 0:
        return
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    # Workers outlive a leader that was killed, and hold the pipe open.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(status: int, errors: str) -> TransientError | UserError:
    if status < 0 and not errors:
        name = signal.Signals(-status).name
        memory = ", perhaps for want of memory" if status == -signal.SIGKILL else ""
        return TransientError(f"pg_dump was ended from outside by {name}{memory}")
    if NO_SPACE in errors:
        return TransientError(f"pg_dump failed: {DISK_IS_FULL}")
    passing = any(text in errors for text in _LOST)
    return (TransientError if passing else UserError)(f"pg_dump failed: {brief(errors) or f'exit status {status}'}")
