"""PostgreSQL that is cut off or silent, set up in odd ways, or changed by others while it is dumped."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

import psutil
import pytest

from mozagg2bq_assets.postgres import dump as dump_module
from mozagg2bq_assets.postgres import pg_dump
from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, parametrized
from mozagg2bq_assets_tests.faults.moments import CHANGES, END_SESSIONS, MOMENTS, TABLE, allowed_rows, at, execute


def dumps() -> list[psutil.Process]:
    """pg_dump and its workers, the leader first."""
    return [each for each in psutil.Process().children(recursive=True) if each.name() == "pg_dump"]


def send(number: signal.Signals, worker: bool) -> Callable[[Harness], None]:
    """Send a signal to pg_dump or to one of its workers."""

    def act(_: Harness) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(dumps()[-1 if worker else 0].pid, number)

    return act


def meanwhile(statement: str) -> Callable[[Harness], None]:
    """Execute it while the dump goes on: it may have to wait for that."""
    return lambda harness: threading.Thread(target=execute, args=(harness, statement)).start()


def set_up(statement: str, undo: str) -> Callable[[Harness], AbstractContextManager[None]]:
    """Execute a statement before the run, and another one after it."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        execute(harness, statement)
        try:
            yield
        finally:
            execute(harness, undo)

    return inject


@contextmanager
def wrong_password(harness: Harness) -> Iterator[None]:
    """The password is another one."""
    source, harness.source = harness.source, replace(harness.source, password="wrong")
    yield
    harness.source = source


@contextmanager
def locked(harness: Harness) -> Iterator[None]:
    """Somebody holds a table for longer than we wait."""
    with pytest.MonkeyPatch.context() as patch, harness.pipeline.source.transaction():
        patch.setattr(dump_module, "LOCK_WAIT_SECONDS", 1)
        harness.pipeline.source.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE".encode())
        yield


@contextmanager
def stopped(harness: Harness) -> Iterator[None]:
    """pg_dump does nothing any more, until its deadline."""
    with pytest.MonkeyPatch.context() as patch, at("reading schemas", send(signal.SIGSTOP, False))(harness):
        patch.setattr(pg_dump, "DEADLINE_SECONDS", 3)
        patch.setattr(pg_dump, "END_SECONDS", 1)
        yield


# Settings that a role may have, and that must not matter.
ROLE_SETTINGS = {
    "statement_timeout": "'2ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "idle_session_timeout": "'100ms'",  # with less, a busy machine's session ends before it has said a word
    "transaction_timeout": "'2ms'",
    "default_transaction_isolation": "'serializable'",
    "default_transaction_deferrable": "on",
    "default_transaction_read_only": "off",
    "search_path": "''",
    "datestyle": "'German'",
    "intervalstyle": "'iso_8601'",
    "timezone": "'Asia/Kathmandu'",
    "extra_float_digits": "-15",
    "bytea_output": "'escape'",
    "client_encoding": "'LATIN1'",
    "row_security": "off",
    "array_nulls": "off",
    "max_parallel_workers_per_gather": "0",
    "work_mem": "'64kB'",
}
FORBIDDEN = {
    "no login": ("ALTER ROLE telemetry NOLOGIN", "ALTER ROLE telemetry LOGIN", "POSTGRES_HOST"),
    "no more connections": (
        "ALTER ROLE telemetry CONNECTION LIMIT 0",
        "ALTER ROLE telemetry CONNECTION LIMIT -1",
        "too many connections",
    ),
    "two connections": (
        "ALTER ROLE telemetry CONNECTION LIMIT 2",
        "ALTER ROLE telemetry CONNECTION LIMIT -1",
        "too many connections",
    ),
    "no table may be read": (
        "REVOKE pg_read_all_data FROM telemetry",
        "GRANT pg_read_all_data TO telemetry",
        "permission denied",
    ),
    "a column is missing": (
        f"ALTER TABLE {TABLE} RENAME COLUMN histogram TO buckets",
        f"ALTER TABLE {TABLE} RENAME COLUMN buckets TO histogram",
        f"the columns of {TABLE} are not",
    ),
    "a column has another type": (
        f"DROP INDEX {TABLE}_dimensions_idx; ALTER TABLE {TABLE} ALTER COLUMN dimensions TYPE json",
        f"ALTER TABLE {TABLE} ALTER COLUMN dimensions TYPE jsonb USING dimensions::jsonb",
        f"the columns of {TABLE} are not",
    ),
    "a password expires": (
        "ALTER ROLE telemetry VALID UNTIL '2001-01-01'",
        "ALTER ROLE telemetry VALID UNTIL 'infinity'",
        "",
    ),
}


def _injections() -> Iterator[Injection]:
    for moment in MOMENTS:
        yield Injection(f"PostgreSQL: cut off, {moment}", at(moment, lambda h: h.network.cut()), exact=True)
        yield Injection(f"PostgreSQL: silent, {moment}", at(moment, lambda h: h.network.fall_silent(5)))
        ended = at(moment, lambda h: execute(h, END_SESSIONS))
        yield Injection(f"PostgreSQL: sessions ended, {moment}", ended, exact=True)
        for change, (statement, rows) in CHANGES.items():
            inject = at(moment, meanwhile(statement))
            yield Injection(f"PostgreSQL: {change}, {moment}", inject, rows=allowed_rows(rows))
    for moment in MOMENTS[1:5]:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
            for worker in (False, True):
                who = "a worker" if worker else "pg_dump"
                yield Injection(f"pg_dump: {number.name} to {who}, {moment}", at(moment, send(number, worker)))
    yield Injection("pg_dump: stopped until its deadline", stopped, exact=True)
    for name, value in ROLE_SETTINGS.items():
        inject = set_up(f"ALTER ROLE telemetry SET {name} = {value}", f"ALTER ROLE telemetry RESET {name}")
        yield Injection(f"role: {name} is {value}", inject, exact=True)
    for name, (statement, undo, says) in FORBIDDEN.items():
        yield Injection(f"role: {name}", set_up(statement, undo), says=says)
    yield Injection("role: another password", wrong_password, says="check POSTGRES_HOST")
    yield Injection("PostgreSQL: a locked table", locked, says=f"table {TABLE} has been locked by another session")


@pytest.mark.stress
@parametrized(list(_injections()), 14)
def test_postgresql(harness: Harness, injection: Injection) -> None:
    """Whatever the source does."""
    check(harness, injection)
