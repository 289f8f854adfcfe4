"""The background processes of the local stack: started once, found again by pid, ended only if they are ours."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from mozagg2bq_assets.errors import UserError

START_SECONDS = 60
STOP_SECONDS = 20
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Service:
    """An HTTP server that runs in the background on a loopback port.

    Its record `NAME.json` (pid, process start time, port) and its log `NAME.log` lie in `state_dir`.
    """

    name: str
    state_dir: Path
    command: Callable[[int], Sequence[str]]
    environment: Mapping[str, str]

    def start(self) -> int:
        """Start it unless it runs, wait until it answers and return its port. Raises UserError."""
        port = self.running_port()
        if port is None:
            # That of the last time if it is free, so that addresses outlive a restart.
            port = free_port(self._record().get("port", 0))
            self._spawn(port)
        self._wait_until_it_answers(port)
        return port

    def stop(self) -> None:
        """End the process that `start` started, if it still runs."""
        process = self._process()
        if process is not None:
            process.terminate()
            deadline = time.monotonic() + STOP_SECONDS
            # Not psutil's wait: that also waits for a zombie, until its new parent has reaped it.
            while self._process() is not None:
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.05)

    def running_port(self) -> int | None:
        """The port it listens on, or None while it does not run."""
        return self._record()["port"] if self._process() is not None else None

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.state_dir / f"{self.name}.log"

    def _record(self) -> dict[str, int]:
        try:
            record: dict[str, int] = json.loads((self.state_dir / f"{self.name}.json").read_text())
            return record
        except (OSError, ValueError):
            return {}

    def _process(self) -> psutil.Process | None:
        """The process of the record. The start time tells it from a later process that got the same pid."""
        record = self._record()
        try:
            process = psutil.Process(record["pid"])
            if process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (KeyError, psutil.NoSuchProcess):
            pass
        return None

    def _spawn(self, port: int) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(port),
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        record = {"pid": process.pid, "started": psutil.Process(process.pid).create_time(), "port": port}
        (self.state_dir / f"{self.name}.json").write_text(json.dumps(record))

    def _wait_until_it_answers(self, port: int) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process() is not None:
            try:
                opener.open(f"http://127.0.0.1:{port}/", timeout=5)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.05)
        raise UserError(f"{self.name} did not start; its log is {self.log}")


def free_port(wished: int = 0) -> int:
    """Find a free port of this machine: `wished` if it is free, else any. Raises UserError where none is."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError("no free port on 127.0.0.1")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C and the like during the block, so that the code that stops processes is not interrupted.

    A terminal that closes may send SIGHUP twice, and people press Ctrl-C twice.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread is interrupted, and only it may say what a signal does.
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
