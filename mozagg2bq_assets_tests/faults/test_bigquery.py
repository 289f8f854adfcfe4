"""BigQuery that is away, overloaded, refuses, or whose answers are cut, lost or somebody else's."""

import json
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

ALL = tuple(Stage)
REQUESTS: dict[str, tuple[Callable[[Request], bool], tuple[Stage, ...]]] = {
    "look at the table": (request_of("GET", r"/tables/\w+\?"), ALL),
    "look at the dataset": (request_of("GET", r"/datasets/\w+\?"), ALL),
    "make the dataset": (request_of("POST", r"/datasets\?"), ALL),
    "make the table": (request_of("POST", r"/tables\?"), ALL),
    "begin an upload": (request_of("POST", "/upload/"), ALL),
    "bytes of an upload": (request_of("PUT", "/upload/"), ALL),
    "look at a job": (request_of("GET", r"/jobs/"), ALL),
    "begin a query": (request_of("POST", r"(?<!upload/bigquery/v2)/projects/\w+/(jobs|queries)\?"), ALL),
    "results of a query": (request_of("GET", r"/queries/"), ALL),
}


def _error(status: int, reason: str, message: str = "said so") -> Answer:
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    return Answer(status, json.dumps({"error": error}).encode())


# What is answered, and whether it may be well a moment later.
ANSWERS: dict[str, tuple[Make, bool]] = {
    "503": (lambda _: _error(503, "backendError"), True),
    "500": (lambda _: Answer(500), True),
    "502 of a proxy": (lambda _: Answer(502, b"<html>Bad Gateway</html>"), True),
    "429": (lambda _: _error(429, "rateLimitExceeded"), True),
    "403 rate limit": (lambda _: _error(403, "rateLimitExceeded"), True),
    "403 quota": (lambda _: _error(403, "quotaExceeded", "Quota exceeded"), False),
    "403": (lambda _: _error(403, "accessDenied", "Access Denied"), False),
    "401": (lambda _: _error(401, "authError"), False),
    "400": (lambda _: _error(400, "invalid", "x" * 5000), False),
    "no answer": (lambda _: Answer(0), True),
    "answer cut": (lambda real: real()._replace(cut=5), True),
    "answer lost": (done_but(Answer(0)), True),
    "done, but 503": (done_but(_error(503, "backendError")), True),
    "a proxy's page": (lambda _: Answer(200, b"<html>Sign in</html>"), False),
}


@pytest.mark.stress
@parametrized(list(answered("BigQuery", "bigquery", REQUESTS, ANSWERS)), 12)
def test_bigquery(harness: Harness, injection: Injection) -> None:
    """Once, and for good."""
    check(harness, injection)
