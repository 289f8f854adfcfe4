"""The embedded S3 and BigQuery as far away as the real services are: python -m benchmarks.latency.

Assumed: 30 ms for an answer of S3's, 150 ms for one of BigQuery's API, and load jobs that are done after 12 s, in which
they need nothing of this machine but what the emulator takes for the load. Prints both URLs, and serves until it is
ended.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from mozagg2bq_assets_tests.helpers.proxies import Answer, Request, http_proxy

S3_SECONDS = 0.03
API_SECONDS = 0.15
LOAD_SECONDS = 12.0
AT_ONCE = 2**20


def main() -> None:
    """Serve."""
    with (
        socket.create_server(("127.0.0.1", 0)) as s3,
        http_proxy(os.environ["BIGQUERY_EMULATOR_HOST"], 600) as bigquery,
    ):
        bigquery.fault = LoadJobs().answer
        print(f"http://127.0.0.1:{s3.getsockname()[1]} {bigquery.url}", flush=True)
        target = urlsplit(os.environ["AWS_ENDPOINT_URL"])
        while True:
            client, _ = s3.accept()
            server = socket.create_connection((target.hostname or "", target.port or 80))
            asked = threading.Event()
            for ends in ((client, server, asked.set), (server, client, lambda asked=asked: answer_late(asked))):
                threading.Thread(target=pump, args=ends, daemon=True).start()


def answer_late(asked: threading.Event) -> None:
    """Wait before the first bytes of an answer."""
    if asked.is_set():
        asked.clear()
        time.sleep(S3_SECONDS)


def pump(source: socket.socket, sink: socket.socket, before: Callable[[], object]) -> None:
    """Pass bytes on until one end has gone, without looking at them: the kernel moves them."""
    reading, writing = os.pipe()
    with suppress(OSError):
        while size := os.splice(source.fileno(), writing, AT_ONCE):
            before()
            while size:
                size -= os.splice(reading, sink.fileno(), size)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    os.close(reading)
    os.close(writing)


class LoadJobs:
    """Load jobs, which run for some time."""

    def __init__(self) -> None:
        self.ends: dict[str, float] = {}

    def answer(self, request: Request, real: Callable[[], Answer]) -> Answer | None:
        """The emulator's answer, later; a job that is done there still runs for a while."""
        began = time.monotonic()
        time.sleep(API_SECONDS)
        if request.method == "PUT" and "uploadType=resumable" in request.path and real().status == 200:
            job = json.loads(real().body)
            self.ends[job["jobReference"]["jobId"]] = began + LOAD_SECONDS
            return _running(job)
        job_id = urlsplit(request.path).path.rpartition("/jobs/")[2]
        if request.method == "GET" and self.ends.get(job_id, 0) > time.monotonic():
            return _running(json.loads(real().body))
        return None


def _running(job: dict[str, object]) -> Answer:
    return Answer(200, json.dumps({**job, "status": {"state": "RUNNING"}}).encode())


if __name__ == "__main__":
    main()
