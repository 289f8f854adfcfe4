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
    """One run of a command: its wall time, the peak of what it and its children held in memory together, and the CPU
    time that they took, to the last sample."""

    seconds: float
    peak_bytes: int
    cpu_seconds: float = 0.0


def run(command: Sequence[str]) -> Measured:
    """Run a command to its end. Raises CalledProcessError, with its output, if it fails."""
    with TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        samples: list[tuple[int, float]] = [(0, 0.0)]
        ended = Event()
        watcher = Thread(target=_watch, args=(process.pid, samples, ended))
        watcher.start()
        _, status, resources = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            print(output.read().decode(), file=sys.stderr)
            raise subprocess.CalledProcessError(process.returncode, command)
    memory, cpu = (max(values) for values in zip(*samples, strict=True))
    # The kernel has counted what has ended and was waited for; the samples have what has not.
    return Measured(seconds, max(resources.ru_maxrss * 1024, memory), max(cpu, resources.ru_utime + resources.ru_stime))


def alternately(works: Mapping[str, Callable[[], Measured]], runs: int) -> dict[str, Measured]:
    """Medians of several runs of each, in turns, so that what else the machine does falls on all of them."""
    results: dict[str, list[Measured]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            results[name].append(work())
            print(f"  {name}: {results[name][-1].seconds:.2f} s", file=sys.stderr, flush=True)
    return {
        name: Measured(
            statistics.median(each.seconds for each in found),
            max(each.peak_bytes for each in found),
            statistics.median(each.cpu_seconds for each in found),
        )
        for name, found in results.items()
    }


def tool(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))


def usage(pid: int) -> tuple[int, float]:
    """Memory in bytes, pages that several share counted once, and CPU seconds of a process and all below it."""
    memory, cpu = 0, 0.0
    try:
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            memory += each.memory_full_info().pss
            cpu += sum(each.cpu_times()[:2])
    except psutil.NoSuchProcess:
        pass
    return memory, cpu


def _watch(pid: int, samples: list[tuple[int, float]], ended: Event) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        samples.append(usage(pid))
