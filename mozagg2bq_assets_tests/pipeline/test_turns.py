"""What holds the source and the processor: one dump at a time from a database, one conversion on a machine."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest

from mozagg2bq_assets.errors import Cancelled, TransientError
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.parquet import converter, writer
from mozagg2bq_assets.parquet.converter import DuckDBConverter, FolderDump
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres import turn
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.postgres.turn import reading_turn
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline
from mozagg2bq_assets_tests.helpers.wait import wait_for

PARTITIONS = [Partition(TYPE, day) for day in DAYS]


def test_dumps_take_turns(
    pipeline: Pipeline, source: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four dumpers at once, of one day each: no two of them hold a snapshot at the same time."""
    monkeypatch.setattr(turn, "POLL_SECONDS", 0.05)

    def dump(number: int) -> PartitionDump:
        ((_, found),) = Dumper(source, tmp_path / str(number)).dump([PARTITIONS[number % 3]])
        assert isinstance(found, PartitionDump)
        return found

    with ThreadPoolExecutor(4) as pool:
        dumps = sorted(pool.map(dump, range(4)), key=lambda dump: dump.taken_at)
    for first, second in pairwise(dumps):
        assert first.rows.total == 250
        # A snapshot is taken a moment after the time from which its holding is counted.
        assert first.taken_at + timedelta(seconds=first.held_seconds) < second.taken_at + timedelta(seconds=0.1)


def test_waiting_is_said_and_can_be_ended(pipeline: Pipeline, source: Postgres, tmp_path: Path) -> None:
    """Somebody else's dump, on whatever machine: the run says once that it waits, and a cancelled one ends at once."""
    said, cancelled, never = list[str](), threading.Event(), threading.Event()
    dumper = Dumper(source, tmp_path, said.append, Patience(cancelled=cancelled))
    with ThreadPoolExecutor(1) as pool, reading_turn(source, said.append, never):
        dumps = pool.submit(list, dumper.dump(PARTITIONS))
        while not said:
            time.sleep(0.01)
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        assert pipeline.source.execute(locks).fetchone() == (1,)
        # Who holds it or waits for it keeps the server from nothing: neither has a snapshot.
        snapshots = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry' AND backend_xmin IS NOT NULL"
        wait_for(lambda: pipeline.source.execute(snapshots).fetchone() == (0,))
        cancelled.set()
        with pytest.raises(Cancelled):
            dumps.result(10)
    assert said == ["waiting for another dump from this database to end"]


def test_turn_ends_with_its_session(pipeline: Pipeline, source: Postgres, administrator: psycopg.Connection) -> None:
    """A dump whose machine is gone keeps nobody waiting once the server has noticed."""
    never = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(suppress(TransientError))
        stack.enter_context(reading_turn(source, print, never))
        administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        stack.enter_context(reading_turn(source, print, never))


def test_conversions_take_turns(
    pipeline: Pipeline, source: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four runs that convert at once: each conversion has the machine for itself."""
    dumps = [
        FolderDump(dump.archive)
        for _, dump in Dumper(source, tmp_path).dump(PARTITIONS)
        if isinstance(dump, PartitionDump)
    ]
    write, under_way, seen = writer.write_parquet, list[int](), list[int]()

    def watched(*arguments: object) -> object:
        under_way.append(1)
        seen.append(len(under_way))
        time.sleep(0.02)
        try:
            return write(*arguments)  # type: ignore[arg-type]
        finally:
            under_way.pop()

    monkeypatch.setattr(converter, "write_parquet", watched)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: list(DuckDBConverter(tmp_path / f"out-{n}").convert(dumps)), range(4)))
    assert seen == [1] * 12
