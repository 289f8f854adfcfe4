"""The source database: who connects, and how."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError, brief
from mozagg2bq_assets.postgres.tools import TOOLS_ENVIRONMENT

CONNECT_SECONDS = 10
# A network may swallow packets without a word. The kernel then gives a connection up after a minute, in libpq's terms:
# after 30 s without a packet, three keepalive probes, 10 s apart; or a minute in which nothing that was sent is
# acknowledged.
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
OLDEST_SERVER = 110000


# A role or a database may have timeouts. pg_dump switches them off for itself, and the sessions beside it live as long,
# so they switch them off too. Statements set them: poolers refuse the startup parameter `options`. With each is the
# first version of the server that has it. The last ones let the server give up a silent client, and release our locks,
# after one minute instead of two hours.
_SESSION = {
    "statement_timeout = 0": OLDEST_SERVER,
    "transaction_timeout = 0": 170000,
    "lock_timeout = 0": OLDEST_SERVER,
    "idle_in_transaction_session_timeout = 0": OLDEST_SERVER,
    "idle_session_timeout = 0": 140000,
    "default_transaction_read_only = on": OLDEST_SERVER,
    f"tcp_keepalives_idle = {KEEPALIVES['keepalives_idle']}": OLDEST_SERVER,
    f"tcp_keepalives_interval = {KEEPALIVES['keepalives_interval']}": OLDEST_SERVER,
    f"tcp_keepalives_count = {KEEPALIVES['keepalives_count']}": OLDEST_SERVER,
    f"tcp_user_timeout = {KEEPALIVES['tcp_user_timeout']}": 120000,
}

_LEADING_ELSEWHERE = ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS")

# Classes of SQLSTATE: connection lost, out of resources, server shutting down or starting up; and the codes of classes
# 40 and 57 with which a standby cancels queries that conflict with replay.
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

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """A read-only session, which ends with the block.

        Raises TransientError if no server answers, if the server takes no connections now, or if a query in the block
        fails in a way that may pass (`_TRANSIENT`); UserError where it refuses, and for any other error of psycopg in
        the block.
        """
        try:
            with self._open() as connection:
                if connection.info.server_version < OLDEST_SERVER:
                    raise UserError(f"PostgreSQL at {self.host}:{self.port} is too old: 11 or newer is needed")
                yield connection
        except psycopg.Error as error:
            raise postgres_error(error) from error

    def _open(self) -> psycopg.Connection:
        target = make_conninfo(
            self.connection_string(),
            host=self.host,
            hostaddr="",  # else PGHOSTADDR or a service would lead elsewhere
            port=self.port,
            connect_timeout=CONNECT_SECONDS,
        )
        try:
            connection = psycopg.connect(
                target,
                dbname=self.dbname,
                user=self.user,
                password=self.password,
                sslmode=self.sslmode,
                sslrootcert=self.sslrootcert,
                application_name="mozagg2bq",
                client_encoding="utf8",
                autocommit=True,
                prepare_threshold=None,  # a pooler's next client would find our statement prepared
            )
            version = connection.info.server_version
            wanted = "; ".join(f"SET {setting}" for setting, since in _SESSION.items() if since <= version)
            connection.execute(wanted.encode())
            connection.autocommit = False
        except psycopg.OperationalError as error:
            lines = (line for line in map(str.strip, str(error).splitlines()) if not line.endswith("?"))
            reason = _WHERE.sub("", " ".join(lines))
            where = f"cannot connect to PostgreSQL at {self.host}:{self.port}"
            if _is_away(reason, target):
                raise TransientError(f"{where}: {brief(reason)}; see whether it runs there") from error
            raise UserError(
                f"{where} as {self.user}: {brief(reason)}; check POSTGRES_HOST, _PORT, _DB, _USER, _PASS, _SSLMODE and"
                " _SSLROOTCERT"
            ) from error
        return connection

    def environment(self) -> Mapping[str, str]:
        """The environment of pg_dump and psql: this process's, with what leads to the source, and to nothing else.

        So no password is ever an argument. The tools' own messages are in English, and dates in UTC.
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
        """libpq settings that have no environment variable. pg_dump needs them in addition to `environment`."""
        return " ".join(f"{name}={value}" for name, value in KEEPALIVES.items())


# Where libpq has tried to connect, which we say ourselves.
_WHERE = re.compile(
    r'(?:connection failed: )?connection to server (?:at|on socket) ".*?"(?: \(.*?\))?(?:, port \d+)? failed: '
)


def end_query(connection: psycopg.Connection) -> None:
    """End what a session waits for, from another thread. A session that has gone silent ends by KEEPALIVES.

    `cancel` would not do: it has no timeout, and stops all threads of the process meanwhile.
    """
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CONNECT_SECONDS)


# What libpq says by itself, in English, and what will not pass: an unknown host, and TLS that does not come about.
_MISTAKES = ("Name or service not known", "certificate", "does not support SSL", "sslmode")
# How libpq shows a server's own message: severity, colon, two blanks. The severity and the message are both in the
# server's language.
_ANSWERED = re.compile(r"(?:^|: )\w+:  ")
_TOO_MANY = ("too many clients", "too many connections", "remaining connection slots")


def _is_away(reason: str, target: str) -> bool:
    """Whether it may pass: no server answered, or it takes no connections now. Not an unknown host, or TLS that fails.

    libpq tells no SQLSTATE of a connection that fails, but its ping shows whether a server is starting or stopping.
    """
    if not _ANSWERED.search(reason):
        return not any(text in reason for text in _MISTAKES)
    return any(text in reason for text in _TOO_MANY) or PGconn.ping(target.encode()) is Ping.REJECT


def postgres_error(error: psycopg.Error) -> OperatorError:
    """TransientError or UserError for what a session has raised; a lost connection has no SQLSTATE."""
    lost = error.sqlstate is None and isinstance(error, psycopg.OperationalError)
    transient = lost or (error.sqlstate or "").startswith(_TRANSIENT)
    reason = brief(str(error).strip().partition("\n")[0]) or type(error).__name__
    return (TransientError if transient else UserError)(f"PostgreSQL: {reason}")
