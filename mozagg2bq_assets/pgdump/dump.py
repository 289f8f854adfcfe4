"""Dump the source tables of some days with one pg_dump, counted in the snapshot that is dumped."""

import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from mozagg2bq_assets.errors import DataError, UserError, check_counts
from mozagg2bq_assets.pgdump.archive import DayArchive, open_day, split_by_day
from mozagg2bq_assets.pgdump.source import Postgres, list_tables
from mozagg2bq_assets.schema import AggregateType, SourceTable, ds_nodash

# Measured on a full day: twice as fast as pg_dump's defaults, and within a fifth of the server's own limit.
JOBS = 2
COMPRESSION = 1
LOCK_WAIT_SECONDS = 60
DEADLINE_SECONDS = 4 * 3600

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of Linux' prctl
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class DayDump:
    """A day's archive, and what the source said of it.

    `rows` counts each table in the archive, `source_rows` in the dumped snapshot (None where the server does not share
    any). The snapshot was taken at `taken_at` and held for `held_seconds`; `seconds` is the day's share of the dump.
    """

    archive: DayArchive
    rows: Mapping[str, int]
    source_rows: Mapping[str, int] | None
    snapshot: str | None
    taken_at: datetime
    held_seconds: float
    seconds: float


DumpResult = DayDump | UserError | DataError


def checked(result: DumpResult) -> DayDump:
    """The dump, if it has each table's rows of the snapshot. Raises what came in its place, or CountMismatch."""
    if isinstance(result, Exception):
        raise result
    if result.source_rows is not None:
        check_counts(f"dump of {result.archive.directory.name}", result.source_rows, result.rows)
    return result


def dump_days(
    source: Postgres,
    aggregate_type: AggregateType,
    days: Sequence[date],
    directory: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[date, DumpResult]:
    """Dump the tables of some days, each day into a folder `directory/YYYYMMDD`. A day without tables is left out.

    As many days at once as the server's lock table bears; if that fails, its days one by one, so that a day that cannot
    be dumped costs no other. Such a day has its error in place of its dump. `progress` gets pg_dump's messages. Raises
    UserError where the source cannot be reached.
    """
    with source.connect() as connection:
        by_day = _group_by_day(list_tables(connection, aggregate_type, days))
        limit = _table_limit(connection)
    results: dict[date, DumpResult] = {}
    for batch in _batches(by_day, limit):
        try:
            results |= _dump_batch(source, aggregate_type, batch, directory, progress)
        except (UserError, DataError) as error:
            if len(batch) == 1:
                results[batch[0]] = error
                continue
            progress(f"the dump of {len(batch)} days failed, so they are dumped one by one: {error}")
            for day in batch:
                results |= dump_days(source, aggregate_type, [day], directory, progress)
    return results


def _dump_batch(
    source: Postgres,
    aggregate_type: AggregateType,
    days: Sequence[date],
    directory: Path,
    progress: Callable[[str], None],
) -> dict[date, DumpResult]:
    """One pg_dump for all those days. Raises UserError or DataError, and then leaves nothing behind."""
    started = time.monotonic()
    batch = directory / "batch"
    try:
        with source.connect() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            snapshot = _export_snapshot(connection)
            taken_at = datetime.now(UTC)
            tables = list_tables(connection, aggregate_type, days)
            if not tables:
                return {}
            with ThreadPoolExecutor(1) as pool:
                counts = pool.submit(_count_rows, source, snapshot, tables) if snapshot else None
                _run_pg_dump(source, snapshot, _pattern(aggregate_type, days), batch, progress)
                source_rows = counts.result() if counts else None
        held_seconds = time.monotonic() - started
        archives = _split(batch, directory, aggregate_type, tables)
        rows = {day: archive.count_rows() for day, archive in archives.items()}
        return {
            day: DayDump(
                archive,
                rows[day],
                source_rows and {name: source_rows[name] for name in rows[day]},
                snapshot,
                taken_at,
                held_seconds,
                (time.monotonic() - started) * len(archive.data_files) / len(tables),
            )
            for day, archive in archives.items()
        }
    except BaseException as error:
        for day in days:
            shutil.rmtree(directory / ds_nodash(day), ignore_errors=True)
        if isinstance(error, psycopg.Error):
            raise UserError(f"PostgreSQL: {str(error).strip().splitlines()[0]}") from error
        raise
    finally:
        shutil.rmtree(batch, ignore_errors=True)


def _group_by_day(tables: Iterable[SourceTable]) -> dict[date, list[SourceTable]]:
    by_day: dict[date, list[SourceTable]] = {}
    for table in tables:
        by_day.setdefault(table.day, []).append(table)
    return dict(sorted(by_day.items()))


def _table_limit(connection: psycopg.Connection) -> int:
    """Tables that one pg_dump may take. It locks each twice (leader and worker); half of the lock table is others'."""
    row = connection.execute(
        "SELECT current_setting('max_locks_per_transaction')::int"
        " * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)"
    ).fetchone()
    return int(row[0]) // 4 if row else 1


def _batches(by_day: Mapping[date, Sequence[SourceTable]], limit: int) -> Iterator[list[date]]:
    """Consecutive days with no more tables than that together; a day with more goes alone."""
    batch: list[date] = []
    size = 0
    for day, tables in by_day.items():
        if batch and size + len(tables) > limit:
            yield batch
            batch, size = [], 0
        batch.append(day)
        size += len(tables)
    if batch:
        yield batch


def _split(
    batch: Path, directory: Path, aggregate_type: AggregateType, tables: Iterable[SourceTable]
) -> dict[date, DayArchive]:
    archives = {}
    for day, its_tables in _group_by_day(tables).items():
        target = directory / ds_nodash(day)
        split_by_day(batch, target, its_tables)
        archives[day] = open_day(target, aggregate_type, day)
        if missing := {table.name for table in its_tables} - {file.table.name for file in archives[day].data_files}:
            raise DataError(f"pg_dump left out {min(missing)}")
    return archives


def _export_snapshot(connection: psycopg.Connection) -> str | None:
    """The id under which other sessions can see what this transaction sees; standbys older than 10 have none."""
    if connection.info.server_version < 100000:
        (standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (True,)
        if standby:
            return None
    (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or (None,)
    return None if snapshot is None else str(snapshot)


def _count_rows(source: Postgres, snapshot: str, tables: Iterable[SourceTable]) -> dict[str, int]:
    """Rows per table in that snapshot; a transaction each, so that locks do not pile up on the server."""
    counts = {}
    with source.connect() as connection:
        for table in tables:
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
                counts[table.name] = count_rows(connection, table.name)
    return counts


def count_rows(connection: psycopg.Connection, table: LiteralString | str) -> int:
    """Rows of one table of schema public."""
    query = sql.SQL("SELECT count(*) FROM public.{}").format(sql.Identifier(table))
    (rows,) = connection.execute(query).fetchone() or (0,)
    return int(rows)


def _run_pg_dump(
    source: Postgres,
    snapshot: str | None,
    pattern: str,
    output: Path,
    progress: Callable[[str], None],
) -> None:
    """Run pg_dump to its end and pass its messages on. Raises UserError with its last error."""
    command = [
        "pg_dump",
        "--format=directory",
        f"--jobs={JOBS}",
        f"--compress={COMPRESSION}",
        f"--lock-wait-timeout={LOCK_WAIT_SECONDS}s",
        "--no-password",
        "--no-sync",
        "--verbose",
        f"--file={output}",
        *((f"--snapshot={snapshot}",) if snapshot else ()),
        f"--table=public.{pattern}",
    ]
    errors: deque[str] = deque(maxlen=3)
    try:
        process = subprocess.Popen(
            command,
            env={**os.environ, **source.environment()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=_end_with_parent,
        )
    except FileNotFoundError:
        raise UserError("pg_dump is not on PATH: install PostgreSQL's client tools, as new as the server") from None
    # pg_dump switches the server's statement timeout off for itself.
    deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
    deadline.start()
    try:
        for line in process.stderr or ():
            message = line.rstrip().removeprefix("pg_dump: ")
            progress(message)
            if message.startswith(("error:", "detail:", "hint:")):
                errors.append(message)
        process.wait()
    finally:
        deadline.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode:
            shutil.rmtree(output, ignore_errors=True)
    if process.returncode:
        raise UserError(f"pg_dump failed: {' '.join(errors) or _exit_reason(process.returncode)}")


def _pattern(aggregate_type: AggregateType, days: Iterable[date]) -> str:
    """pg_dump's pattern for the tables of those days; what else it matches, `_split` leaves out.

    It is a regular expression, in which `*` is `.*`. For every pattern pg_dump goes through the whole catalog, so that
    100 names take 8 s where there are 30,000 tables.
    """
    return f"{aggregate_type}_*_({'|'.join(map(ds_nodash, days))})[0-9]{{0,}}"


def _exit_reason(status: int) -> str:
    killed = f"killed after at most {DEADLINE_SECONDS} seconds"
    return killed if status == -signal.SIGKILL else f"exit status {status}"


def _end_with_parent() -> None:
    """In the new process, before it becomes pg_dump: ask the kernel to end it when its parent ends."""
    _libc.prctl(_PDEATHSIG, signal.SIGTERM)
