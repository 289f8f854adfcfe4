"""Time commands as whole processes, and their memory."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil

SAMPLE_SECONDS = 0.25  # finding a command's children costs some milliseconds of a core


@dataclass(frozen=True)
class Measured:
    """One run of a command: its wall time, and the peak of what it and its children held in memory together."""

    seconds: float
    peak_bytes: int


def run(command: Sequence[str]) -> Measured:
    """Run a command to its end. Raises CalledProcessError, with its output, if it fails."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peaks = [0]
    watcher = Thread(target=_watch, args=(process, peaks))
    watcher.start()
    output, _ = process.communicate()
    seconds = time.monotonic() - started
    watcher.join()
    if process.returncode:
        print(output, file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)
    return Measured(seconds, max(peaks))


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


def _watch(process: subprocess.Popen[str], peaks: list[int]) -> None:
    while process.poll() is None:
        peaks.append(_memory(process.pid))
        time.sleep(SAMPLE_SECONDS)


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
