"""The source database: who connects, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError

CONNECT_SECONDS = 10


# Classes of SQLSTATE: connection lost, server shutting down or starting up, out of resources; and of class 40 and 57
# what a standby says to a query that is in the way of what it replays.
_TRANSIENT = ("08", "53", "57P", "40001", "57014")


@dataclass(frozen=True)
class Postgres:
    """Where the source is and who asks."""

    host: str
    port: str
    dbname: str
    user: str
    password: str = field(repr=False)

    def connect(self) -> psycopg.Connection:
        """A read-only connection. Raises UserError where there is no server, database or right to connect."""
        try:
            return psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=self.dbname,
                user=self.user,
                password=self.password,
                connect_timeout=CONNECT_SECONDS,
                application_name="mozagg2bq",
                options="-c default_transaction_read_only=on",
            )
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"cannot connect to PostgreSQL at {self.host}:{self.port} as {self.user}: {reason};"
                " check POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB, POSTGRES_USER and POSTGRES_PASS"
            ) from error

    def environment(self) -> Mapping[str, str]:
        """What pg_dump and psql read; so that no password is ever an argument."""
        return {
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGDATABASE": self.dbname,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGAPPNAME": "mozagg2bq",
        }


def postgres_error(error: psycopg.Error) -> OperatorError:
    """TransientError or UserError for what a session has raised; a lost connection has no SQLSTATE."""
    lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
    transient = lost or (error.sqlstate or "").startswith(_TRANSIENT)
    return (TransientError if transient else UserError)(f"PostgreSQL: {str(error).strip().splitlines()[0]}")
