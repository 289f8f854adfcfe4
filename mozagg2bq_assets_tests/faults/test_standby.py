"""The source is a standby: its replay ends our sessions, it is behind, starts anew, or becomes the primary."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, check_nothing_left, parametrized
from mozagg2bq_assets_tests.faults.moments import CHANGES, END_SESSIONS, MOMENTS, TABLE, allowed_rows, at, execute
from mozagg2bq_assets_tests.helpers.proxies import socket_of, tcp_proxy
from mozagg2bq_assets_tests.helpers.standby import Standby, administrator_of, standby_of


def on_standby(
    moment: str, act: Callable[[Harness, Standby], None]
) -> Callable[[Harness], AbstractContextManager[None]]:
    """Let the source be a standby, and do something to it or to its primary when pg_dump is at that moment."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        source, network = harness.source, harness.network
        with standby_of(source) as standby, tcp_proxy(socket_of(standby.postgres)) as harness.network:
            harness.source = standby.postgres
            with at(moment, lambda harness: act(harness, standby))(harness):
                yield
            check_nothing_left(harness)
        harness.source, harness.network = source, network

    return inject


def replay(harness: Harness, standby: Standby, statements: tuple[str, ...]) -> None:
    """The primary executes them, and the standby does it after it: who is in the way there is ended."""
    for statement in statements:
        execute(harness, statement)
    standby.wait_for_replay(harness.pipeline.source)


def fall_behind(harness: Harness, standby: Standby) -> None:
    """From now on the standby does not see what the primary does."""
    with administrator_of(standby.postgres) as connection:
        connection.execute("SELECT pg_wal_replay_pause()")
    execute(harness, f"TRUNCATE {TABLE}")


def as_administrator(statement: str, _: Harness, standby: Standby) -> None:
    """Execute it on the standby."""
    with administrator_of(standby.postgres) as connection:
        connection.execute(statement.encode())


ACTS: dict[str, Callable[[Harness, Standby], None]] = {
    "it starts anew": lambda _, standby: standby.restart(),
    "it becomes the primary": partial(as_administrator, "SELECT pg_promote()"),
    "its sessions are ended": partial(as_administrator, END_SESSIONS),
    "it falls behind": fall_behind,
}
# The last one removes rows that our snapshot may see.
REPLAYED: dict[str, tuple[tuple[str, ...], int]] = {
    **{change: ((statement,), rows) for change, (statement, rows) in CHANGES.items()},
    "dead rows are removed": ((f"UPDATE {TABLE} SET histogram = '{{7}}'", f"VACUUM {TABLE}"), 250),
}


def _injections() -> Iterator[Injection]:
    for moment in MOMENTS:
        for name, act in ACTS.items():
            yield Injection(f"standby: {name}, {moment}", on_standby(moment, act), exact=True)
        for change, (statements, rows) in REPLAYED.items():
            inject = on_standby(moment, partial(replay, statements=statements))
            yield Injection(f"standby: {change}, {moment}", inject, exact=True, rows=allowed_rows(rows))


@pytest.mark.stress
@parametrized(list(_injections()), 3)
def test_standby(harness: Harness, injection: Injection) -> None:
    """Whatever its replay or its owner does; the run after it reads the primary."""
    check(harness, injection)
