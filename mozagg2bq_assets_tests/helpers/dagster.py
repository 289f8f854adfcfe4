"""A real `dagster dev` for a test."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.local.stack import ROOT

START_SECONDS = 120
LOG = "dev.log"


@contextmanager
def dagster_dev(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Webserver and daemon with that environment, which has their DAGSTER_HOME; gives the URL and the process's id.

    Its output goes to `dev.log` in the folder.
    """
    port = free_port()
    command = (sys.executable, "-m", "dagster", "dev", "--port", str(port), "--workspace", str(ROOT / "workspace.yaml"))
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            command, cwd=environment["DAGSTER_HOME"], env={**environment}, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + START_SECONDS
            while not _answers(url):
                assert time.monotonic() < deadline, (folder / LOG).read_text()
                time.sleep(0.2)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.RequestException:
        return False
