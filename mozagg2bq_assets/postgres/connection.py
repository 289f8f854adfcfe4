"""The source database: who connects, and how."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError
from mozagg2bq_assets.postgres.tools import TOOLS_ENVIRONMENT

CONNECT_SECONDS = 10
# A network may swallow packets without a word. The kernel then gives a connection up after a minute, in libpq's terms:
# 30 s without a packet, then three questions, 10 s apart; or a minute in which nothing that was sent is acknowledged.
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
OLDEST_SERVER = 110000


# A role or a database may have timeouts. pg_dump switches them off for itself, and the sessions beside it live as long.
# Not by the startup parameter `options`, which poolers refuse; by name, as older servers do not know all of them.
_SESSION = """
SELECT set_config(name, CASE name WHEN 'default_transaction_read_only' THEN 'on' ELSE '0' END, false)
FROM pg_catalog.pg_settings WHERE name IN (
    'default_transaction_read_only', 'statement_timeout', 'lock_timeout', 'transaction_timeout',
    'idle_in_transaction_session_timeout', 'idle_session_timeout'
)
"""

_LEADING_ELSEWHERE = ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS")

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
    sslmode: str = "prefer"
    sslrootcert: str = ""  # libpq's own default

    def connect(self) -> psycopg.Connection:
        """A read-only connection.

        Raises TransientError where no server answers or it takes no connections now, UserError where it refuses.
        """
        try:
            connection = psycopg.connect(
                self.connection_string(),
                host=self.host,
                hostaddr="",  # or PGHOSTADDR, or a service, would lead elsewhere
                port=self.port,
                dbname=self.dbname,
                user=self.user,
                password=self.password,
                sslmode=self.sslmode,
                sslrootcert=self.sslrootcert,
                connect_timeout=CONNECT_SECONDS,
                application_name="mozagg2bq",
                client_encoding="utf8",
                autocommit=True,
            )
            connection.execute(_SESSION)
            connection.autocommit = False
        except psycopg.OperationalError as error:
            reason = " ".join(line for line in map(str.strip, str(error).splitlines()) if not line.endswith("?"))
            kind = TransientError if _is_away(reason) else UserError
            raise kind(
                f"cannot connect to PostgreSQL at {self.host}:{self.port} as {self.user}: {reason};"
                " check POSTGRES_HOST, _PORT, _DB, _USER, _PASS, _SSLMODE and _SSLROOTCERT"
            ) from error
        if connection.info.server_version < OLDEST_SERVER:
            connection.close()
            raise UserError(f"PostgreSQL at {self.host}:{self.port} is too old: 11 or newer is needed")
        return connection

    def environment(self) -> Mapping[str, str]:
        """The environment of pg_dump and psql: this process's, with what leads to the source, and to nothing else.

        So no password is ever an argument. Messages are in English, and dates in UTC.
        """
        kept = {name: value for name, value in os.environ.items() if name not in _LEADING_ELSEWHERE}
        return {
            **kept,
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGDATABASE": self.dbname,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGSSLMODE": self.sslmode,
            "PGSSLROOTCERT": self.sslrootcert,
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGAPPNAME": "mozagg2bq",
            "PGCLIENTENCODING": "UTF8",
            **TOOLS_ENVIRONMENT,
        }

    def connection_string(self) -> str:
        """The settings of libpq that no variable of the environment has, for pg_dump beside `environment` too."""
        return " ".join(f"{name}={value}" for name, value in KEEPALIVES.items())


# FATAL is what a server says that answers; these of its reasons pass by themselves.
_BUSY = ("the database system is", "too many clients", "too many connections", "remaining connection slots")
# What libpq says by itself, and what will not pass: an unknown host, and TLS that does not come about.
_MISTAKES = ("Name or service not known", "certificate", "does not support SSL", "sslmode")


def _is_away(reason: str) -> bool:
    """Whether no server has answered, or one that takes no connections now."""
    if "FATAL" in reason:
        return any(text in reason for text in _BUSY)
    return not any(text in reason for text in _MISTAKES)


def postgres_error(error: psycopg.Error) -> OperatorError:
    """TransientError or UserError for what a session has raised; a lost connection has no SQLSTATE."""
    lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
    transient = lost or (error.sqlstate or "").startswith(_TRANSIENT)
    return (TransientError if transient else UserError)(f"PostgreSQL: {str(error).strip().splitlines()[0]}")
