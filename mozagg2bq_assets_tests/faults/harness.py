"""Run the pipeline under a fault, then again without it: both times what came of it is checked, and recorded.

Under the fault every day is exact, or fails with an error of one line; nothing hangs, no row is lost or doubled, and
nothing is left behind. Without it every day is exact.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import boto3
import psutil
import pytest
from botocore.config import Config
from google.cloud import bigquery
from hypothesis import settings

from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.lake.leftovers import stored_versions
from mozagg2bq_assets.lake.manifest import MANIFESTS
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.content import ContentCheck
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, Request, TcpProxy
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline
from mozagg2bq_assets_tests.helpers.standby import administrator_of

# Nothing of some tiny days takes longer, with all that is waited for.
HANG_SECONDS = 60.0
PATIENCE_SECONDS = 2.0
LONGEST_MESSAGE = 300
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"


@dataclass
class Harness:
    """A seeded source, a lake and a dataset, with a proxy before each, and a folder of the test's own."""

    pipeline: Pipeline
    source: Postgres
    network: TcpProxy
    s3: HttpProxy
    bigquery: HttpProxy
    folder: Path
    days: DayRange
    record: Callable[[str, object], None]
    # What pg_dump says is heard here too.
    hear: Callable[[str], None] = lambda _: None
    # What the lake is told of other runs: all have ended, unless it cannot be known.
    is_running: Callable[[str], bool | None] = lambda _: False
    runs: int = 0
    changes: dict[str, Any] = field(default_factory=dict)

    def services(self) -> Services:
        """All services by way of the proxies, for a new run; no client tries again by itself, so that we have to."""
        self.runs += 1
        config = Config(retries={"total_max_attempts": 1}, response_checksum_validation="when_required")
        lake = replace(self.pipeline.lake, client=boto3.client("s3", endpoint_url=self.s3.url, config=config))
        known = self.pipeline.warehouse.client
        # Whoever reads credentials checks their key, for 70 ms.
        client = bigquery.Client(known.project, known._credentials, client_options={"api_endpoint": self.bigquery.url})
        run = Run(f"run-{self.runs}", f"run-{self.runs}")
        return Services(
            LakeWriter(lake, run, self.is_running),
            replace(self.source, host="127.0.0.1", port=str(self.network.port)),
            DuckDBConverter(self.folder / Stage.PARQUET),
            replace(self.pipeline.warehouse, client=client),
            PATIENCE_SECONDS,
            accept_shrink=True,  # some faults drop tables
        )

    def run(self, stages: Sequence[Stage] = tuple(Stage)) -> list[StageResult] | OperatorError:
        """All days through some stages; what stops them all is an error."""
        services = replace(self.services(), **self.changes)
        partitions = [Partition(TYPE, day) for day in self.days]
        try:
            return list(ingest(partitions, stages, services, self.folder, progress=lambda line: self.hear(line)))
        except OperatorError as error:
            return error

    def bounded(self, stages: Sequence[Stage] = tuple(Stage)) -> list[StageResult] | OperatorError:
        """The same; a test that waits for longer has found a hang."""
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.run, stages).result(HANG_SECONDS)


@dataclass(frozen=True)
class Injection:
    """A fault: its kind, what injects it, and what may come of it.

    `exact` says that no day may fail; `stages` are run under the fault, after a run of those before them without it.
    `rows` are the numbers of rows that a day may then have.
    """

    kind: str
    inject: Callable[[Harness], AbstractContextManager[object]]
    exact: bool = False
    stages: tuple[Stage, ...] = tuple(Stage)
    rows: tuple[int, ...] = (250,)
    says: str = ""

    def __str__(self) -> str:
        return self.kind


def is_long() -> bool:
    """Whether all faults are injected; not to be asked before pytest has read its options."""
    return bool(settings().max_examples == 500)


def days_under_fault() -> DayRange:
    """Three days; in CI two, as a fault that one of them meets has to spare the other."""
    return DAYS if is_long() else DayRange(DAYS.start, DAYS.end - timedelta(days=1))


def chosen(injections: Sequence[Injection], count: int) -> Sequence[Injection]:
    """All of them in the long profile, and so many, evenly spread, in CI."""
    step = 1.0 if is_long() else max(len(injections) / count, 1.0)
    return [injections[int(n * step)] for n in range(int(len(injections) / step))]


def check(harness: Harness, injection: Injection) -> None:
    """Run under the fault, look at what is there, then run without it, and look again."""
    before = list(Stage)[: list(Stage).index(injection.stages[0])]
    if before:
        assert failures(harness.bounded(before)) == []
    with injection.inject(harness):
        failed = failures(harness.bounded(injection.stages))
    check_messages(failed)
    if injection.says:
        assert any(injection.says in str(error) for error in failed), [str(error) for error in failed]
    if injection.exact:
        assert [str(error) for error in failed] == []
    days = harness.pipeline.reconcile(harness.days).days
    in_bigquery = [day.bigquery_rows for day in days]
    # A day is there as a whole, or not at all.
    assert all(rows in (0, *injection.rows) for rows in in_bigquery), in_bigquery
    check_nothing_left(harness)
    harness.hear, harness.changes = lambda _: None, {}
    assert failures(harness.bounded()) == []
    check_exact(harness)
    harness.record("injection", {"kind": injection.kind, "outcome": "clean error" if failed else "exact"})


def failures(results: list[StageResult] | OperatorError) -> list[OperatorError]:
    """What has failed."""
    if isinstance(results, OperatorError):
        return [results]
    return [result.error for result in results if result.error is not None]


def check_messages(errors: Sequence[OperatorError]) -> None:
    """One line, not too long, and no traceback, statement, or id of an upload in it."""
    for text in map(str, errors):
        assert "\n" not in text
        assert len(text) <= LONGEST_MESSAGE, text
        assert not any(noise in text for noise in ("Traceback", "LOCK TABLE", "COPY public", "upload_id=", "uploadId="))


def check_nothing_left(harness: Harness) -> None:
    """No pg_dump, no session, and no file in the run's folder but empty folders."""
    deadline = time.monotonic() + 10
    while True:
        dumps = [each.name() for each in psutil.Process().children(recursive=True) if each.name() == "pg_dump"]
        with administrator_of(harness.source) as server:
            sessions = server.execute(SESSIONS).fetchone()
        files = [path for path in harness.folder.rglob("*") if path.is_file()]
        if (dumps, sessions, files) == ([], (0,), []):
            return
        assert time.monotonic() < deadline, (dumps, sessions, files)
        time.sleep(0.1)


def check_exact(harness: Harness) -> None:
    """What every row holds is the same in source, lake and BigQuery, and the lake has one version of each stage."""
    (source, lake, warehouse), days = harness.pipeline, harness.days
    content = ContentCheck(source, lake, warehouse.content_sums(TYPE, days), harness.folder)
    report = reconcile(source, lake, warehouse, TYPE, days, count_source=True, content=content)
    assert report.differences == []
    assert [day.source_rows for day in report.days] == [day.bigquery_rows for day in report.days]
    for kind in MANIFESTS:
        root = lake.key(kind.of, TYPE) + "/"
        found = stored_versions(root, lake.list(root), lake.uploads(root))
        assert len(found) == len(days), [each.folder for each in found]
        assert [version.folder for version in found if version.uploads] == []


def request_of(method: str, pattern: str) -> Callable[[Request], bool]:
    """Requests by method and path."""
    return lambda request: request.method == method and re.search(pattern, request.path) is not None


_UPLOADED = request_of("PUT", "/upload/bigquery/")

# What is answered in the place of the server, which answers if it is called.
Make: TypeAlias = Callable[[Callable[[], Answer]], Answer]


@contextmanager
def faulty(proxy: HttpProxy, matching: Callable[[Request], bool], make: Make, times: int) -> Iterator[None]:
    """Answer so to the first requests of a kind."""
    left, lock = [times], Lock()

    def fault(request: Request, real: Callable[[], Answer]) -> Answer | None:
        with lock:
            if not matching(request) or not left[0]:
                return _still_running(real()) if _UPLOADED(request) else None
            left[0] -= 1
        return make(real)

    proxy.fault = fault
    try:
        yield
    finally:
        proxy.fault = lambda _, __: None
    assert left[0] < times, "there was no such request"


def _still_running(answer: Answer) -> Answer:
    """The answer to a load job's upload, as BigQuery gives it: the job has not ended yet, and has to be looked at."""
    if answer.status != 200:
        return answer
    job = json.loads(answer.body)
    job["status"] = {"state": "RUNNING"}
    return answer._replace(body=json.dumps(job).encode())


def answering(
    proxy: Literal["s3", "bigquery"], matching: Callable[[Request], bool], make: Make, times: int
) -> Callable[[Harness], AbstractContextManager[None]]:
    """The injection of `faulty` answers of one of the two services."""
    return lambda harness: faulty(getattr(harness, proxy), matching, make, times)


def done_but(answer: Answer) -> Make:
    """The server does what it is asked for, and its answer is another one."""

    def make(real: Callable[[], Answer]) -> Answer:
        real()
        return answer

    return make


def answered(
    area: str,
    proxy: Literal["s3", "bigquery"],
    requests: Mapping[str, tuple[Callable[[Request], bool], tuple[Stage, ...]]],
    answers: Mapping[str, tuple[Make, bool]],
) -> Iterator[Injection]:
    """Every answer to every request, once and for good. `requests` have the stages that are run to see them.

    `answers` say whether it may be well a moment later: then no day may fail of one.
    """
    for request, (matching, stages) in requests.items():
        for answer, (make, passing) in answers.items():
            for times in (1, 10**6):
                inject = answering(proxy, matching, make, times)
                yield Injection(f"{area}: {request}, {answer}", inject, passing and times == 1, stages)


def parametrized(injections: Sequence[Injection], count: int) -> pytest.MarkDecorator:
    """The test's parameter `injection`."""
    return pytest.mark.parametrize("injection", chosen(injections, count), ids=str)
