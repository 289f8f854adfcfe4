"""Errors of sessions, by whether they may be well a moment later."""

import psycopg
import pytest

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError
from mozagg2bq_assets.postgres.connection import Postgres, postgres_error


def test_ended_by_an_administrator(source: Postgres, administrator: psycopg.Connection) -> None:
    """A session that the server ends is transient, and so is what it is asked afterwards."""
    with source.connect() as connection:
        administrator.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        for _ in range(2):
            with pytest.raises(psycopg.Error) as raised:
                connection.execute("SELECT 1")
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
