"""Dump the source tables of some days with one pg_dump, counted in the snapshot that is dumped."""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
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

_PDEATHSIG = 1  # PR_SET_PDEATHSIG of Linux' prctl
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class DayDump:
    """A day's archive, and what the source said of it.

    `source_rows` counts each table in the dumped snapshot (None where the server does not share any). The snapshot was
    taken at `taken_at` and held for `held_seconds`; `seconds` is the day's share of the whole dump.
    """

    archive: DayArchive
    source_rows: Mapping[str, int] | None
    snapshot: str | None
    taken_at: datetime
    held_seconds: float
    seconds: float

    def check(self) -> None:
        """Raise CountMismatch unless the archive has each table's rows of the snapshot."""
        if self.source_rows is not None:
            check_counts(f"dump of {self.archive.directory.name}", self.source_rows, self.archive.rows_by_table)


def dump_days(
    source: Postgres,
    aggregate_type: AggregateType,
    days: Sequence[date],
    directory: Path,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[date, DayDump]:
    """Dump the tables of some days, each day into a folder `directory/YYYYMMDD`. A day without tables is left out.

    `progress` gets pg_dump's messages. Nothing remains in `directory` where this raises: UserError where the source
    cannot be reached or read, DataError where a count is off or a file is not whole.
    """
    started = time.monotonic()
    with source.connect() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot = _export_snapshot(connection)
        taken_at = datetime.now(UTC)
        tables = list_tables(connection, aggregate_type, days)
        if not tables:
            return {}
        batch = directory / "batch"
        with ThreadPoolExecutor(1) as pool:
            counts = pool.submit(_count_rows, source, snapshot, tables) if snapshot else None
            _run_pg_dump(source, snapshot, tables, batch, progress)
            source_rows = counts.result() if counts else None
    held_seconds = time.monotonic() - started
    try:
        return {
            day: DayDump(
                archive,
                source_rows and {file.table.name: source_rows[file.table.name] for file in archive.data_files},
                snapshot,
                taken_at,
                held_seconds,
                (time.monotonic() - started) * len(archive.data_files) / len(tables),
            )
            for day, archive in _split(batch, directory, aggregate_type, tables)
        }
    finally:
        shutil.rmtree(batch)


def _split(
    batch: Path, directory: Path, aggregate_type: AggregateType, tables: Iterable[SourceTable]
) -> Iterable[tuple[date, DayArchive]]:
    by_day: dict[date, list[SourceTable]] = {}
    for table in tables:
        by_day.setdefault(table.day, []).append(table)
    for day, its_tables in sorted(by_day.items()):
        target = directory / ds_nodash(day)
        split_by_day(batch, target, its_tables)
        archive = open_day(target, aggregate_type, day)
        if missing := {table.name for table in its_tables} - {file.table.name for file in archive.data_files}:
            raise DataError(f"pg_dump left out {min(missing)}")
        yield day, archive


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
    tables: Iterable[SourceTable],
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
        # In double quotes a pattern has no wildcards.
        *(f'--table=public."{table.name}"' for table in tables),
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
    try:
        for line in process.stderr or ():
            message = line.rstrip().removeprefix("pg_dump: ")
            progress(message)
            if message.startswith(("error:", "detail:", "hint:")):
                errors.append(message)
        process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.returncode:
            shutil.rmtree(output, ignore_errors=True)
    if process.returncode:
        raise UserError(f"pg_dump failed: {' '.join(errors) or f'exit status {process.returncode}'}")


def _end_with_parent() -> None:
    """In the new process, before it becomes pg_dump: ask the kernel to end it when its parent ends."""
    _libc.prctl(_PDEATHSIG, signal.SIGTERM)
