"""Time commands as whole processes, and their memory."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread

import psutil

# Finding a command's children goes through all processes, so it is done rarely. What peaks in between shows for each
# process alone: the kernel keeps that.
SAMPLE_SECONDS = 1.0


@dataclass(frozen=True)
class Measured:
    """One run of a command: its wall time, and the peak of what it and its children held in memory together."""

    seconds: float
    peak_bytes: int


def run(command: Sequence[str]) -> Measured:
    """Run a command to its end. Raises CalledProcessError, with its output, if it fails."""
    with TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        peaks: list[int] = []
        ended = Event()
        watcher = Thread(target=_watch, args=(process.pid, peaks, ended))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            print(output.read().decode(), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(seconds, max(usage.ru_maxrss * 1024, *peaks, 0))


def alternately(works: Mapping[str, Callable[[], Measured]], runs: int) -> dict[str, Measured]:
    """Medians of several runs of each, in turns, so that what else the machine does falls on all of them."""
    results: dict[str, list[Measured]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            results[name].append(work())
            print(f"  {name}: {results[name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return {
        name: Measured(statistics.median(each.seconds for each in found), max(each.peak_bytes for each in found))
        for name, found in results.items()
    }


def tool(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


def _watch(pid: int, peaks: list[int], ended: Event) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        peaks.append(_memory(pid))


def _memory(pid: int) -> int:
    """Resident memory of a process and all below it."""
    total = 0
    try:
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total
