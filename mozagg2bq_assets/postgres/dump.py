"""Dump the source tables of some partitions, and count them in the very snapshot that is dumped.

One pg_dump takes as many partitions as the server's lock table bears; `pg_dump` runs it.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
from psycopg import sql

from mozagg2bq_assets.errors import Attempt, Cancelled, DataError, OperatorError, TransientError, UserError
from mozagg2bq_assets.model.counts import TableCounts, check_counts
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres.archive import PartitionArchive, open_archive, split_off
from mozagg2bq_assets.postgres.cancellation import ended_early
from mozagg2bq_assets.postgres.connection import Postgres, postgres_error
from mozagg2bq_assets.postgres.pg_dump import LOCK_WAIT_SECONDS, run_pg_dump
from mozagg2bq_assets.postgres.tables import count_table, group_by_partition, list_tables
from mozagg2bq_assets.postgres.turn import reading_turn

# A trimming job drops a hundred tables at a time, which may happen between a listing and the locks.
LISTINGS = 5


@dataclass(frozen=True)
class PartitionDump:
    """A partition's archive, which has the rows that the source said it had.

    `rows` counts each table in the archive, `source_rows` in the dumped snapshot, which was taken at `taken_at` (UTC)
    and held for `held_seconds`; `seconds` is the partition's share of the dump.
    """

    archive: PartitionArchive
    rows: TableCounts
    source_rows: TableCounts
    snapshot: str
    taken_at: datetime
    held_seconds: float
    seconds: float


@dataclass(frozen=True)
class Dumper:
    """Where to dump from and to, who hears pg_dump's messages, and how often it is tried while the source is away."""

    source: Postgres
    directory: Path
    progress: Callable[[str], None] = lambda _: None
    patience: Patience = field(default_factory=Patience)

    def dump(self, partitions: Sequence[Partition]) -> Iterator[tuple[Partition, Attempt[PartitionDump | None]]]:
        """Dump each partition into `directory/TYPE/YYYYMMDD`; None where the source has no tables of it.

        Takes as many partitions into one pg_dump as the server's lock table bears, and yields them, in their order,
        before it begins the next. If a pg_dump fails, its partitions are dumped one by one, so that one that cannot be
        dumped costs no other: it has its error in the place of its dump. Raises OperatorError where the source cannot
        be listed, and Cancelled.
        """
        tables, limit = self.patience.call(partial(self._plan, partitions))
        for part in _parts(partitions, tables, limit):
            yield from self._dump_part(part)

    def _plan(self, partitions: Sequence[Partition]) -> tuple[Mapping[Partition, Sequence[SourceTable]], int]:
        """The tables of each partition, and how many one pg_dump may take."""
        try:
            with self.source.connect() as connection:
                return group_by_partition(list_tables(connection, partitions)), _table_limit(connection)
        except psycopg.Error as error:
            raise postgres_error(error) from error

    def _dump_part(self, part: Sequence[Partition]) -> Iterator[tuple[Partition, Attempt[PartitionDump | None]]]:
        try:
            dumps = self.patience.call(partial(self._dump_together, part))
        except TransientError as error:  # one by one, each would meet the same
            yield from ((partition, error) for partition in part)
        except OperatorError as error:
            if len(part) == 1:
                yield part[0], error
                return
            self.progress(f"the dump of {len(part)} days failed, so they are dumped one by one: {error}")
            for partition in part:
                yield from self._dump_part([partition])
        else:
            yield from ((partition, dumps.get(partition)) for partition in part)

    def _dump_together(self, part: Sequence[Partition]) -> dict[Partition, Attempt[PartitionDump]]:
        """One pg_dump for all of them. Raises OperatorError or Cancelled, and then leaves nothing behind."""
        together = self.directory / "together"
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            turn = reading_turn(self.source, self.progress, self.patience.cancelled)
            with turn, self.source.connect() as connection:
                started = time.monotonic()
                with ended_early(self.patience.cancelled, connection.cancel):
                    tables = _lock_tables(connection, part)
                if not tables:
                    return {}
                snapshot = _export_snapshot(connection)
                taken_at = datetime.now(UTC)
                with ThreadPoolExecutor(1) as pool:
                    counts = pool.submit(self._count_tables, snapshot, tables)
                    try:
                        run_pg_dump(self.source, snapshot, part, together, self.progress, self.patience.cancelled)
                    except UserError:
                        connection.execute("SELECT 1")  # raises where the server has ended this session too
                        raise
                    source_rows = counts.result()
            held = time.monotonic() - started
            archives = _split(together, self.directory, tables)
            counted = [(archive, archive.count_tables()) for archive in archives]
            per_table = (time.monotonic() - started) / len(tables)
            return {
                archive.partition: _checked_dump(
                    PartitionDump(
                        archive, rows, _of(rows, source_rows), snapshot, taken_at, held, per_table * len(rows)
                    )
                )
                for archive, rows in counted
            }
        except BaseException as error:
            for partition in part:
                shutil.rmtree(self.directory / partition.path, ignore_errors=True)
            if isinstance(error, psycopg.Error) and self.patience.cancelled.is_set():
                raise Cancelled from error
            if isinstance(error, psycopg.Error):
                raise postgres_error(error) from error
            raise
        finally:
            shutil.rmtree(together, ignore_errors=True)

    def _count_tables(self, snapshot: str, tables: Iterable[SourceTable]) -> TableCounts:
        """Rows per table in that snapshot; a transaction each, so that locks do not pile up on the server.

        Somebody who waits to drop a table waits for our first lock, and we would wait behind him: so not for ever.
        """
        counts = TableCounts()
        with self.source.connect() as connection, ended_early(self.patience.cancelled, connection.cancel):
            for table in tables:
                with connection.transaction():
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
                    with _lock_wait(connection, table):
                        counts[table.name] = count_table(connection, table.name)
        return counts


def _table_limit(connection: psycopg.Connection) -> int:
    """Tables that one pg_dump may take: we, its leader and a worker lock each; half of the lock table is others'."""
    row = connection.execute(
        "SELECT current_setting('max_locks_per_transaction')::int"
        " * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)"
    ).fetchone()
    return int(row[0]) // 6 if row else 1


def _lock_tables(connection: psycopg.Connection, part: Sequence[Partition]) -> list[SourceTable]:
    """Lock the tables of those partitions, in a new transaction that has no snapshot yet, and return them.

    A snapshot that is taken afterwards sees each table as it then is. One taken before would see no rows in a table
    that somebody drops and makes anew, or rewrites, before pg_dump locks it: rows would be lost, and the counts agree.
    Raises UserError, naming the table, where somebody else holds it for too long, which is waiting enough, and
    TransientError where tables vanish all the time.
    """
    for _ in range(LISTINGS):
        tables = list_tables(connection, part)
        connection.commit()
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            for table in tables:
                name = sql.Identifier("public", table.name)
                with _lock_wait(connection, table):
                    connection.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(name))
        except psycopg.errors.UndefinedTable:
            connection.rollback()  # it has vanished since the listing
        else:
            return tables
    raise TransientError(f"tables of {part[0]} vanish as fast as they are listed: try again later")


@contextmanager
def _lock_wait(connection: psycopg.Connection, table: SourceTable) -> Iterator[None]:
    """Give up waiting for the table's lock after LOCK_WAIT_SECONDS. Raises UserError, naming the table."""
    connection.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT_SECONDS}s'".encode())
    try:
        yield
    except psycopg.errors.LockNotAvailable:
        raise UserError(
            f"table {table.name} has been locked by another session for {LOCK_WAIT_SECONDS} seconds: see who holds it"
            " in pg_locks, or try again later"
        ) from None


def _parts(
    partitions: Iterable[Partition], tables: Mapping[Partition, Sequence[SourceTable]], limit: int
) -> Iterator[list[Partition]]:
    """Partitions in their order, with no more tables than that together; one with more goes alone."""
    part: list[Partition] = []
    size = 0
    for partition in partitions:
        count = len(tables.get(partition, ()))
        if part and size + count > limit:
            yield part
            part, size = [], 0
        part.append(partition)
        size += count
    if part:
        yield part


def _split(together: Path, directory: Path, tables: Iterable[SourceTable]) -> list[PartitionArchive]:
    """The common archive as one for each partition. Raises DataError where pg_dump left a table out."""
    archives = []
    for partition, its_tables in group_by_partition(tables).items():
        target = directory / partition.path
        split_off(together, target, its_tables)
        archive = open_archive(target, partition)
        if missing := {table.name for table in its_tables} - {file.table.name for file in archive.data_files}:
            raise DataError(f"pg_dump left out {min(missing)}")
        archives.append(archive)
    return archives


def _of(rows: TableCounts, source_rows: TableCounts) -> TableCounts:
    return TableCounts({name: source_rows[name] for name in rows})


def _checked_dump(dump: PartitionDump) -> Attempt[PartitionDump]:
    """The dump if it has each table's rows of the snapshot, else CountMismatch."""
    try:
        check_counts(f"dump of {dump.archive.partition.ds_nodash}", dump.source_rows, dump.rows)
    except OperatorError as error:
        return error
    return dump


def _export_snapshot(connection: psycopg.Connection) -> str:
    """The id under which other sessions can see what this transaction sees."""
    (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
    return str(snapshot)
