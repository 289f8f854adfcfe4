"""The source database: how to connect, and which tables belong to which day."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date

import psycopg

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.schema import AggregateType, SourceTable, ds_nodash

CONNECT_SECONDS = 10

# Plain tables of schema public whose name starts with the type; which of them are aggregate tables, SourceTable says.
_TABLES = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relispartition AND starts_with(relname, %s)
"""


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


def list_names(connection: psycopg.Connection, aggregate_type: AggregateType, days: Iterable[date] = ()) -> list[str]:
    """Names of the tables that look like the type's, of some days or of all, sorted."""
    query, parameters = _TABLES, [f"{aggregate_type}_"]
    if wanted := "|".join(map(ds_nodash, days)):
        query += " AND relname ~ %s"
        parameters.append(f"_({wanted})[0-9]*$")
    return sorted(name for (name,) in connection.execute(query.encode(), parameters))


def list_tables(
    connection: psycopg.Connection, aggregate_type: AggregateType, days: Iterable[date] = ()
) -> list[SourceTable]:
    """The type's source tables, of some days or of all, sorted by name."""
    tables = map(SourceTable.parse, list_names(connection, aggregate_type, days))
    return [table for table in tables if table is not None]
