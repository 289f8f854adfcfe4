"""Dump the source tables of some partitions, and count them in the very snapshot that is dumped.

Partitions are dumped in parts, each part has one snapshot and one run of pg_dump. The module `pg_dump`
starts the program; the module `compress` compresses its files.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event

import psycopg
from psycopg import sql

from mozagg2bq_assets.errors import Attempt, Cancelled, DataError, OperatorError, TransientError, UserError
from mozagg2bq_assets.model.counts import TableCounts, check_counts
from mozagg2bq_assets.model.files import StoredFile
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.model.updates import SourceState
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres.archive import CommonArchive, PartitionArchive
from mozagg2bq_assets.postgres.cancellation import ended_early
from mozagg2bq_assets.postgres.compress import CompressedFile, Compressor, compressor
from mozagg2bq_assets.postgres.connection import Postgres, end_query
from mozagg2bq_assets.postgres.pg_dump import JOBS, LOCK_WAIT_SECONDS, run_pg_dump
from mozagg2bq_assets.postgres.tables import count_table, group_by_partition, list_tables, sum_sizes
from mozagg2bq_assets.postgres.turn import reading_turn
from mozagg2bq_assets.postgres.updates import source_states

# Three full days. Many small ones go together, as each pg_dump costs seconds in a large catalog.
PART_TABLES = 300
# How many times larger a table is in PostgreSQL than its compressed rows: six in practice; three leaves room.
SMALLER = 3
# How pg_dump says that it has begun a table.
TABLE_BEGUN = "pg_dump: dumping contents of table"
# A trimming job drops a hundred tables at a time, which may happen between a listing and the locks.
LISTINGS = 5


@dataclass(frozen=True)
class PartitionDump:
    """A partition's archive, which has the rows that the source said it had.

    `rows` counts each table in the archive, `source_rows` in the dumped snapshot, which was taken at `taken_at` (UTC)
    and held for `held_seconds`; `state` is the partition's in that snapshot; `files` are the data files; `seconds` is
    the partition's share of the dump.
    """

    archive: PartitionArchive
    rows: TableCounts
    source_rows: TableCounts
    state: SourceState
    files: Sequence[StoredFile]
    snapshot: str
    taken_at: datetime
    held_seconds: float
    seconds: float


@dataclass(frozen=True)
class _Taken:
    """What was dumped together: the tables, their rows and states in the snapshot, and how long that was held."""

    tables: Sequence[SourceTable]
    source_rows: TableCounts
    states: Mapping[Partition, SourceState]
    snapshot: str
    at: datetime
    seconds: float


@dataclass(frozen=True)
class Dumper:
    """Source, target folder, callback for messages, patience with the source, and number of pg_dump's connections."""

    source: Postgres
    directory: Path
    progress: Callable[[str], None] = lambda _: None
    patience: Patience = field(default_factory=Patience)
    jobs: int = JOBS

    def dump(self, partitions: Sequence[Partition]) -> Iterator[tuple[Partition, Attempt[PartitionDump | None]]]:
        """Dump all parts of them, as `dump_part` says. Raises OperatorError where the source cannot be listed."""
        for part in self.parts(partitions):
            yield from self.dump_part(part)

    def parts(self, partitions: Sequence[Partition]) -> list[list[Partition]]:
        """Split partitions, in order, into parts for one pg_dump each, by PART_TABLES and the server's lock table.

        A pg_dump begins by reading the whole catalog. What is dumped together is on this machine's disk together.
        """
        tables, limit = self.patience.call(partial(self._plan, partitions))
        return list(_parts(partitions, tables, min(limit, PART_TABLES)))

    def dump_part(self, part: Sequence[Partition]) -> Iterator[tuple[Partition, Attempt[PartitionDump | None]]]:
        """Dump partitions into `directory/TYPE/YYYYMMDD`, with one pg_dump; None where the source has no tables of one.

        After TransientError all of them get the error in the place of a dump. After any other error, the partitions
        whose tables the error names get that error; the rest are dumped together again. If it names none or all of
        several partitions, each is dumped by itself. Raises Cancelled.
        """
        try:
            dumps = self.patience.call(partial(self._dump_together, part))
        except TransientError as error:  # each would meet the same
            yield from ((partition, error) for partition in part)
        except OperatorError as error:
            failed = _named(error, part) or part
            if len(part) == 1 or len(failed) < len(part):
                yield from ((partition, error) for partition in failed)
                others = [[partition for partition in part if partition not in failed]]
            else:
                others = [[partition] for partition in part]
            if others := [each for each in others if each]:
                self.progress(f"the dump of {len(part)} days failed, so days of it are dumped once more: {error}")
            for other in others:
                yield from self.dump_part(other)
        else:
            yield from ((partition, dumps.get(partition)) for partition in part)

    def _plan(self, partitions: Sequence[Partition]) -> tuple[Mapping[Partition, Sequence[SourceTable]], int]:
        """The tables of each partition, and how many one pg_dump may take."""
        with self.source.connect() as connection:
            return group_by_partition(list_tables(connection, partitions)), _table_limit(connection)

    def _dump_together(self, part: Sequence[Partition]) -> dict[Partition, Attempt[PartitionDump]]:
        """One pg_dump for all of them. Raises OperatorError or Cancelled, and then leaves nothing behind."""
        with _removed_folder(self.directory / "together") as together, compressor(together) as compress:
            try:
                with reading_turn(self.source, self.progress, self.patience.cancelled):
                    taken = self._take(part, together, compress)
            except OperatorError as error:
                if self.patience.cancelled.is_set():
                    raise Cancelled from error
                raise
            # From here on the source is free for others.
            return self._split(taken, together, compress.finish()) if taken.tables else {}

    def _take(self, part: Sequence[Partition], together: Path, compress: Compressor) -> _Taken:
        """Dump and count in one snapshot; if pg_dump fails, counting ends too. Raises OperatorError or Cancelled."""
        started = time.monotonic()
        with self.source.connect() as connection:
            with ended_early(self.patience.cancelled, partial(end_query, connection)):
                tables = _lock_tables(connection, part)
                if not tables:
                    return _Taken([], TableCounts(), {}, "", datetime.now(UTC), 0)
                _check_room(self.directory, sum_sizes(connection, tables))
                snapshot, taken_at = _export_snapshot(connection), datetime.now(UTC)
                states = source_states(connection, part)

            begun = count(1)

            def hear(message: str) -> None:
                compress.hear(message)
                if message.startswith(TABLE_BEGUN):
                    message += f" ({next(begun)} of {len(tables)}; {compress.rows:,} rows are done)"
                self.progress(message)

            over = Event()
            with ThreadPoolExecutor(1) as pool:
                counts = pool.submit(self._count_tables, snapshot, tables, over)
                try:
                    run_pg_dump(self.source, snapshot, part, together, hear, self.patience.cancelled, self.jobs)
                    source_rows = counts.result()
                except BaseException as error:
                    over.set()
                    if isinstance(error, UserError):
                        # TransientError if the server has ended this session too, or somebody waits for a table.
                        _check_waiting(connection, tables)
                    raise
        return _Taken(tables, source_rows, states, snapshot, taken_at, time.monotonic() - started)

    def _split(
        self, taken: _Taken, together: Path, files: Mapping[str, Attempt[CompressedFile]]
    ) -> dict[Partition, Attempt[PartitionDump]]:
        common = CommonArchive.read(together)
        dumps: dict[Partition, Attempt[PartitionDump]] = {}
        for partition, tables in group_by_partition(taken.tables).items():
            try:
                archive = common.split_off(partition, tables, self.directory / partition.path)
                dumps[partition] = _checked_dump(taken, archive, files)
            except DataError as error:
                shutil.rmtree(self.directory / partition.path, ignore_errors=True)
                dumps[partition] = error
        return dumps

    def _count_tables(self, snapshot: str, tables: Iterable[SourceTable], over: Event) -> TableCounts:
        """Rows per table in that snapshot, until `over`; a transaction each, so that the server's locks do not pile up.

        A session that waits to drop a table waits for our first lock, and this session queues behind it. So this
        session waits at most LOCK_WAIT_SECONDS for a table.
        """
        counts = TableCounts()
        with (
            self.source.connect() as connection,
            ended_early(over, partial(end_query, connection)),
            ended_early(self.patience.cancelled, partial(end_query, connection)),
        ):
            for table in tables:
                with connection.transaction():
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot)))
                    with _lock_wait(connection, table):
                        counts[table.name] = count_table(connection, table.name)
        return counts


def _table_limit(connection: psycopg.Connection) -> int:
    """How many tables one pg_dump may take.

    Each table is locked three times (by us, pg_dump's leader and a worker), and half of the lock table is left to
    others.
    """
    row = connection.execute(
        "SELECT current_setting('max_locks_per_transaction')::int"
        " * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)"
    ).fetchone()
    return int(row[0]) // 6 if row else 1


def _lock_tables(connection: psycopg.Connection, part: Sequence[Partition]) -> list[SourceTable]:
    """Lock the tables of those partitions, in a new transaction that has no snapshot yet, and return them.

    A snapshot that is taken afterwards sees each table as it then is. One taken before would see no rows in a table
    that somebody drops and makes anew, or rewrites, before pg_dump locks it: rows would be lost, and the counts agree.
    Raises UserError, naming the table, where another session holds it for LOCK_WAIT_SECONDS, and
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


def _check_waiting(connection: psycopg.Connection, tables: Iterable[SourceTable]) -> None:
    """Raise TransientError, naming the table, if a session waits for one of those that we have locked.

    Our other sessions then wait behind it. It gets the table when this dump ends.
    """
    waiting = connection.execute(
        "SELECT relname FROM pg_catalog.pg_locks JOIN pg_catalog.pg_class ON pg_class.oid = relation"
        " WHERE NOT granted AND relnamespace = 'public'::regnamespace AND relname = ANY(%s) LIMIT 1",
        [[table.name for table in tables]],
    ).fetchone()
    if waiting:
        raise TransientError(
            f"table {waiting[0]} is wanted by a session that waits for this dump, while the dump waits for it: see who"
            " that is in pg_locks, or try again later"
        )


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


def _named(error: OperatorError, part: Sequence[Partition]) -> list[Partition]:
    """Those of the partitions that a table named in the error belongs to."""
    tables = map(SourceTable.parse, re.findall(r"\w+_\d{8,}", str(error)))
    named = {Partition.of(table) for table in tables if table}
    return [partition for partition in part if partition in named]


def _check_room(directory: Path, size: int) -> None:
    """Raise TransientError unless the dump of tables of so many bytes finds room. It may pass:
    files of other days are removed meanwhile."""
    free, needed = shutil.disk_usage(directory).free, size // SMALLER
    if free < needed:
        raise TransientError(
            f"{directory} has {free / 2**20:,.0f} MiB free, and the next dump may take {needed / 2**20:,.0f} MiB:"
            " free some, or use another disk, by TMPDIR or a command's --output-dir"
        )


@contextmanager
def _removed_folder(path: Path) -> Iterator[Path]:
    """Give the path of a folder that the block makes, and remove it when the block ends. Makes the parent folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _checked_dump(
    taken: _Taken, archive: PartitionArchive, files: Mapping[str, Attempt[CompressedFile]]
) -> PartitionDump:
    """The dump, if it has each table's rows of the snapshot. Raises DataError, naming the table, where it has not."""
    rows, stored = TableCounts(), list[StoredFile]()
    for data_file in archive.data_files:
        name = data_file.table.name
        found = files[data_file.path.name.split(".")[0]]
        if isinstance(found, OperatorError):
            raise DataError(f"{name}: {found}")
        rows[name] = found.rows
        stored.append(found.file)
    source_rows = TableCounts({name: taken.source_rows[name] for name in rows})
    check_counts(f"dump of {archive.partition.ds_nodash}", source_rows, rows)
    share = taken.seconds * len(rows) / len(taken.tables)
    state = taken.states[archive.partition]
    return PartitionDump(archive, rows, source_rows, state, stored, taken.snapshot, taken.at, taken.seconds, share)


def _export_snapshot(connection: psycopg.Connection) -> str:
    """The id under which other sessions can see what this transaction sees."""
    (snapshot,) = connection.execute("SELECT pg_export_snapshot()").fetchone() or ("",)
    return str(snapshot)
