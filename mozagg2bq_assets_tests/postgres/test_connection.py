"""Errors of sessions, by whether they may be well a moment later."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

import psutil
import psycopg
import pytest

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.postgres import connection
from mozagg2bq_assets.postgres.connection import Postgres, postgres_error
from mozagg2bq_assets.postgres.dump import Dumper
from mozagg2bq_assets_tests.helpers.proxies import TcpProxy, socket_of, tcp_proxy


def test_ended_by_an_administrator(source: Postgres, administrator: psycopg.Connection) -> None:
    """A session that the server ends is transient, and so is what it is asked afterwards."""
    with source.connect() as session:
        administrator.execute("SELECT pg_terminate_backend(%s)", [session.info.backend_pid])
        for _ in range(2):
            with pytest.raises(psycopg.Error) as raised:
                session.execute("SELECT 1")
            assert type(postgres_error(raised.value)) is TransientError
            assert "\n" not in str(postgres_error(raised.value))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.SerializationFailure, TransientError),
        (psycopg.errors.QueryCanceled, TransientError),
        (psycopg.errors.CannotConnectNow, TransientError),
        (psycopg.errors.TooManyConnections, TransientError),
        (psycopg.errors.InsufficientPrivilege, UserError),
        (psycopg.errors.UndefinedTable, UserError),
    ],
)
def test_kinds(error: type[psycopg.Error], kind: type[OperatorError]) -> None:
    """By SQLSTATE."""
    assert type(postgres_error(error("said so"))) is kind


@pytest.fixture
def silent(source: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Postgres, TcpProxy]]:
    """The source by way of a proxy, and how long silence is borne, in a test's measure."""
    hurried = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2, "tcp_user_timeout": 3000}
    monkeypatch.setattr(connection, "KEEPALIVES", connection.KEEPALIVES | hurried)
    with tcp_proxy(socket_of(source)) as proxy:
        yield replace(source, host="127.0.0.1", port=str(proxy.port)), proxy


def test_a_session_that_goes_silent(silent: tuple[Postgres, TcpProxy]) -> None:
    """No packets, and no end either: the session is lost after a while, which is transient."""
    source, proxy = silent
    with ThreadPoolExecutor(1) as pool, source.connect() as session:
        waiting = pool.submit(session.execute, "SELECT pg_sleep(60)")
        proxy.swallow()
        with pytest.raises(psycopg.OperationalError) as raised:
            waiting.result(30)
    assert type(postgres_error(raised.value)) is TransientError


def test_a_dump_that_goes_silent(
    silent: tuple[Postgres, TcpProxy], administrator: psycopg.Connection, tmp_path: Path
) -> None:
    """pg_dump and its workers end, and so do our sessions beside it."""
    source, proxy = silent
    partition = Partition(AggregateType.BUILD_ID, date(2019, 12, 1))
    sample.create_update_dates(administrator)
    for _ in sample.seed_partition(administrator, partition, 0.001):
        pass

    def hear(message: str) -> None:
        if message.startswith("pg_dump: dumping contents"):
            proxy.swallow()

    with ThreadPoolExecutor(1) as pool:
        dumps = pool.submit(list, Dumper(source, tmp_path, hear).dump([partition]))
        ((_, found),) = dumps.result(60)
    proxy.cut()  # or the server would keep its locks
    assert type(found) is TransientError
    assert "\n" not in str(found)
    assert not [each for each in psutil.Process().children(recursive=True) if each.name() == "pg_dump"]
