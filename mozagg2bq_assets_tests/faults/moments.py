"""Points of a run's work, and what may happen to the source at them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psycopg

from mozagg2bq_assets_tests.faults.harness import Harness, request_of
from mozagg2bq_assets_tests.helpers.proxies import Request

MOMENTS = (
    "last built-in OID",
    "reading schemas",
    "reading user-defined tables",
    "dumping contents of table",
    "finished item",
    "saving database definition",
)
# The service, and which of its requests.
REQUESTS: dict[str, tuple[str, Callable[[Request], bool]]] = {
    "PUT of a data file": ("s3", request_of("PUT", r"\.dat\.gz")),
    "PUT of a dump's manifest": ("s3", request_of("PUT", r"raw_dump/.*manifest")),
    "PUT of Parquet": ("s3", request_of("PUT", r"\.parquet")),
    "PUT of a Parquet file's manifest": ("s3", request_of("PUT", r"parquet/.*manifest")),
    "PUT of a load's manifest": ("s3", request_of("PUT", r"bigquery_table/.*manifest")),
    "listing": ("s3", request_of("GET", "list-type")),
    "make the table": ("bigquery", request_of("POST", r"/tables\?")),
    "begin an upload": ("bigquery", request_of("POST", "/upload/")),
    "bytes of an upload": ("bigquery", request_of("PUT", "/upload/")),
    "look at a job": ("bigquery", request_of("GET", "/jobs/")),
    "results of a query": ("bigquery", request_of("GET", "/queries/")),
}
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'telemetry'"
# Of the second day.
TABLE = "build_id_nightly_73_20191202"
# What others do to that table. The last number is of rows that it may have besides 250.
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


def execute(harness: Harness, statement: str) -> None:
    """As the source's owner, in a session of its own.

    The dump waits until it is done, so a lock that the dump holds is not waited for long.
    """
    with (
        suppress(psycopg.errors.LockNotAvailable),
        psycopg.connect(harness.pipeline.source.info.dsn, autocommit=True) as connection,
    ):
        connection.execute("SET lock_timeout = '2s'")
        connection.execute(statement.encode())


def allowed_rows(rows: int) -> tuple[int, ...]:
    """Of a day during a change: it may lose one of its tables, whatever that holds."""
    return (250, 251) if rows else tuple(range(252))
