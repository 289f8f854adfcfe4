"""A standalone Spark cluster on this machine: a master, and workers of one core each, as processes of their own.

Each worker is a host to Spark, at an address of its own: a speculative copy of a task runs on another host.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local.services import free_port

START_SECONDS = 60
ADDRESS = "127.0.0.1"
WORKER = ("--cores", "1", "--memory", "2g", "--webui-port", "0")


@dataclass(frozen=True)
class Cluster:
    """The master's URL, and the workers' processes."""

    url: str
    workers: Sequence[subprocess.Popen[bytes]]


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    """Run a cluster while the block lasts, with its logs and work in `folder`. Executors get our environment.

    Drivers reach it with SPARK_LOCAL_IP=127.0.0.1. Raises UserError where it does not start.
    """
    port, page = free_port(), free_port()
    url = f"spark://{ADDRESS}:{port}"
    with ExitStack() as stack:
        stack.enter_context(_running(folder, ADDRESS, "master.Master", "--port", str(port), "--webui-port", str(page)))
        processes = [
            stack.enter_context(
                _running(folder, f"127.0.0.{2 + n}", "worker.Worker", url, *WORKER, "--work-dir", str(folder / str(n)))
            )
            for n in range(workers)
        ]
        _wait_for_workers(f"http://{ADDRESS}:{page}/json/", workers)
        yield Cluster(url, processes)


@contextmanager
def _running(folder: Path, address: str, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    import pyspark

    home = Path(pyspark.__file__).parent
    command = (str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}", "--host", address, *arguments)
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": address}
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait_for_workers(status: str, count: int) -> None:
    """Until the master knows all workers; those that come before it try again by themselves."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if requests.get(status, timeout=5).json()["aliveworkers"] == count:
                return
        except requests.RequestException:  # nobody yet, or not yet the status
            pass
        time.sleep(0.1)
    raise UserError(f"Spark did not start with {count} workers: the logs in its folder say why")
