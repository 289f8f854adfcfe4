"""Another instance of Dagster, which knows nothing of this one, ingests the same days at the same time."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import TypeAlias

import pytest

from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets_tests.faults.harness import (
    Harness,
    Injection,
    check,
    check_nothing_left,
    failures,
    faulty,
    parametrized,
)
from mozagg2bq_assets_tests.faults.moments import MOMENTS, REQUESTS, at
from mozagg2bq_assets_tests.helpers.proxies import Answer

# The other one has done all its days by then, unless it has to wait for us.
OVERTAKING_SECONDS = 5
Outcome: TypeAlias = "Future[list[StageResult] | OperatorError]"
Begin: TypeAlias = Callable[[], Outcome]


def with_another(
    meeting: Callable[[Harness, Begin], AbstractContextManager[None]],
) -> Callable[[Harness], AbstractContextManager[None]]:
    """Let another instance begin when both meet; neither can know whether the other's run has ended."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        harness.is_running = lambda _: None
        other = replace(harness, folder=harness.folder.with_name("other"), runs=100, hear=lambda _: None)
        outcomes: list[Outcome] = []
        with ThreadPoolExecutor(1) as pool:

            def begin() -> Outcome:
                outcomes.append(pool.submit(other.bounded))
                return outcomes[0]

            with meeting(harness, begin):
                yield
            (outcome,) = outcomes
            assert [str(error) for error in failures(outcome.result())] == []
        check_nothing_left(other)
        harness.is_running = lambda _: False

    return inject


def at_moment(moment: str) -> Callable[[Harness, Begin], AbstractContextManager[None]]:
    """When pg_dump is at that moment."""

    def meet(harness: Harness, begin: Begin) -> AbstractContextManager[None]:
        def act(_: Harness) -> None:
            begin()

        return at(moment, act)(harness)

    return meet


def at_request(request: str, seconds: float) -> Callable[[Harness, Begin], AbstractContextManager[None]]:
    """At our first request of that kind, which waits that long for the other one to end."""
    proxy, matching = REQUESTS[request]

    def meet(harness: Harness, begin: Begin) -> AbstractContextManager[None]:
        def make(real: Callable[[], Answer]) -> Answer:
            wait([begin()], seconds)
            return real()

        return faulty(getattr(harness, proxy), matching, make, 1)

    return meet


def _injections() -> Iterator[Injection]:
    for moment in MOMENTS:
        yield Injection(f"instances: another one begins, {moment}", with_another(at_moment(moment)), exact=True)
    for request in REQUESTS:
        for name, seconds in {"begins": 0, "overtakes": OVERTAKING_SECONDS}.items():
            inject = with_another(at_request(request, seconds))
            yield Injection(f"instances: another one {name}, {request}", inject, exact=True)


@pytest.mark.stress
@parametrized(list(_injections()), 2)
def test_instances(harness: Harness, injection: Injection) -> None:
    """Both are exact, and nothing is left after a run that knows that both have ended."""
    check(harness, injection)
