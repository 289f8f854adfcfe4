"""PostgreSQL that is cut off or silent, set up in odd ways, or changed by others while it is dumped."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace

import psutil
import psycopg
import pytest

from mozagg2bq_assets.postgres import dump as dump_module
from mozagg2bq_assets.postgres import pg_dump
from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, parametrized

MOMENTS = (
    "last built-in OID",
    "reading schemas",
    "reading user-defined tables",
    "dumping contents of table",
    "finished item",
    "saving database definition",
)
TABLE = "build_id_nightly_73_20191202"
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'telemetry'"


def at(moment: str, act: Callable[[Harness], None]) -> Callable[[Harness], AbstractContextManager[None]]:
    """Do something when pg_dump says for the first time what it is at."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        done = threading.Event()

        def hear(message: str) -> None:
            if f"pg_dump: {moment}" in message and not done.is_set():
                done.set()
                act(harness)

        harness.hear = hear
        yield
        assert done.is_set(), "pg_dump did not say that"

    return inject


def dumps() -> list[psutil.Process]:
    """pg_dump and its workers, the leader first."""
    return [each for each in psutil.Process().children(recursive=True) if each.name() == "pg_dump"]


def send(number: signal.Signals, worker: bool) -> Callable[[Harness], None]:
    """Send a signal to pg_dump or to one of its workers."""

    def act(_: Harness) -> None:
        with suppress(ProcessLookupError, IndexError):
            os.kill(dumps()[-1 if worker else 0].pid, number)

    return act


def execute(harness: Harness, statement: str) -> None:
    """As the source's owner, in a session of its own, which does not wait for locks longer than a dump takes."""
    with (
        suppress(psycopg.errors.LockNotAvailable),
        psycopg.connect(harness.pipeline.source.info.dsn, autocommit=True) as connection,
    ):
        connection.execute("SET lock_timeout = '20s'")
        connection.execute(statement.encode())


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
    "statement_timeout": "'1ms'",
    "lock_timeout": "'1ms'",
    "idle_in_transaction_session_timeout": "'1ms'",
    "idle_session_timeout": "'1ms'",
    "transaction_timeout": "'1ms'",
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
# What others do to a table of the second day. The last number is of rows that it may have besides 250.
CHANGES = {
    "rows are inserted": (f"INSERT INTO {TABLE} VALUES ('{{}}', '{{1}}')", 251),
    "rows are updated": (f"UPDATE {TABLE} SET histogram = '{{7}}'", 250),
    "a table is truncated": (f"TRUNCATE {TABLE}", 0),
    "a table is dropped": (f"DROP TABLE {TABLE}", 0),
    "a table is renamed": (f"ALTER TABLE {TABLE} RENAME TO elsewhere", 0),
    "a table is rewritten": (f"VACUUM FULL {TABLE}", 250),
    "a table is made anew": (
        f"BEGIN; ALTER TABLE {TABLE} RENAME TO old; CREATE TABLE {TABLE} AS SELECT * FROM old; DROP TABLE old; COMMIT",
        250,
    ),
    "a column is added": (f"ALTER TABLE {TABLE} ADD COLUMN id serial", 250),
    "a table appears": ("CREATE TABLE build_id_esr_1_20191202 (dimensions jsonb, histogram bigint[])", 250),
    "an index is dropped": (f"DROP INDEX {TABLE}_dimensions_idx", 250),
    "statistics are made": (f"ANALYZE {TABLE}", 250),
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
        f"ALTER TABLE {TABLE} ALTER COLUMN dimensions TYPE json",
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
            # A day may lose one of its tables, whatever that holds.
            allowed = (250, 251) if rows else tuple(range(252))
            yield Injection(f"PostgreSQL: {change}, {moment}", at(moment, meanwhile(statement)), rows=allowed)
    for moment in MOMENTS[1:5]:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
            for worker in (False, True):
                who = "a worker" if worker else "pg_dump"
                yield Injection(f"pg_dump: {number.name} to {who}, {moment}", at(moment, send(number, worker)))
    yield Injection("pg_dump: stopped until its deadline", stopped, says="pg_dump was ended, as it took more than")
    for name, value in ROLE_SETTINGS.items():
        inject = set_up(f"ALTER ROLE telemetry SET {name} = {value}", f"ALTER ROLE telemetry RESET {name}")
        yield Injection(f"role: {name} is {value}", inject, exact=True)
    for name, (statement, undo, says) in FORBIDDEN.items():
        yield Injection(f"role: {name}", set_up(statement, undo), says=says)
    yield Injection("role: another password", wrong_password, says="check POSTGRES_HOST")
    yield Injection("PostgreSQL: a locked table", locked, says=f"table {TABLE} has been locked by another session")


@pytest.mark.stress
@parametrized(list(_injections()), 16)
def test_postgresql(harness: Harness, injection: Injection) -> None:
    """Whatever the source does."""
    check(harness, injection)
