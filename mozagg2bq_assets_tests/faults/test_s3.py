"""S3 that is away, overloaded, refuses, or whose answers are cut, lost or somebody else's."""

from collections.abc import Callable

import pytest

from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets_tests.faults.harness import (
    Harness,
    Injection,
    Make,
    answered,
    check,
    done_but,
    parametrized,
    request_of,
)
from mozagg2bq_assets_tests.helpers.proxies import Answer, Request

ALL, CONVERT, LOAD = tuple(Stage), (Stage.PARQUET, Stage.BIGQUERY_TABLE), (Stage.BIGQUERY_TABLE,)


# Requests, and the stages that are run to see them.
REQUESTS: dict[str, tuple[Callable[[Request], bool], tuple[Stage, ...]]] = {
    "PUT of a data file": (request_of("PUT", r"\.dat\.gz"), ALL),
    "PUT of a table of contents": (request_of("PUT", r"toc\.dat"), ALL),
    "PUT of Parquet": (request_of("PUT", r"\.parquet"), ALL),
    "PUT of a dump's manifest": (request_of("PUT", r"raw_dump/.*manifest"), ALL),
    "PUT of a Parquet file's manifest": (request_of("PUT", r"parquet/.*manifest"), ALL),
    "PUT of a load's manifest": (request_of("PUT", r"bigquery_table/.*manifest"), ALL),
    "GET of a manifest": (request_of("GET", "manifest"), ALL),
    "GET of a data file": (request_of("GET", r"\.dat\.gz"), CONVERT),
    "GET of Parquet": (request_of("GET", r"\.parquet"), LOAD),
    "listing": (request_of("GET", "list-type"), ALL),
    "listing of uploads": (request_of("GET", r"\?.*uploads"), ALL),
}


def _error(status: int, code: str) -> Answer:
    return Answer(status, f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode())


# What is answered, and whether it may be well a moment later.
ANSWERS: dict[str, tuple[Make, bool]] = {
    "503": (lambda _: _error(503, "SlowDown"), True),
    "500": (lambda _: Answer(500), True),
    "429": (lambda _: _error(429, "TooManyRequests"), True),
    "400 RequestTimeout": (lambda _: _error(400, "RequestTimeout"), True),
    "403": (lambda _: _error(403, "AccessDenied"), False),
    "no answer": (lambda _: Answer(0), True),
    "answer cut": (lambda real: real()._replace(cut=5), True),
    "answer lost": (done_but(Answer(0)), True),
    "done, but 503": (done_but(_error(503, "SlowDown")), True),
    "a proxy's page": (lambda _: Answer(200, b"<html>Sign in</html>"), False),
}


# Of the answer to a PUT nothing but the status is read.
UNREAD = ("a proxy's page", "answer cut")
INJECTIONS = [
    injection
    for injection in answered("S3", "s3", REQUESTS, ANSWERS)
    if not (injection.kind.startswith("S3: PUT") and injection.kind.endswith(UNREAD))
]


@pytest.mark.stress
@parametrized(INJECTIONS, 13)
def test_s3(harness: Harness, injection: Injection) -> None:
    """Once, and for good."""
    check(harness, injection)
