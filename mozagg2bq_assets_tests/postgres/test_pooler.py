"""The source behind PgBouncer, which refuses the startup parameter `options`."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from mozagg2bq_assets.errors import TransientError, UserError
from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.helpers.runs import Pipeline
from mozagg2bq_assets_tests.helpers.wait import wait_for

CONFIG = """
[databases]
{dbname} = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
pool_mode = {mode}
auth_type = plain
auth_file = {folder}/users
unix_socket_dir =
"""


@pytest.fixture(params=["session", "transaction"])
def pooled(request: pytest.FixtureRequest, source: Postgres) -> Iterator[Postgres]:
    """The source by way of a pooler that gives a client a session of the server for as long as `pool_mode` says."""
    command = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if command is None:
        if os.environ.get("REQUIRE_POSTGRESQL"):
            raise UserError("install Debian's package pgbouncer")
        pytest.skip("this needs pgbouncer")
    # It works as the server's user, who may go where the server's socket is; so this is not pytest's folder.
    with TemporaryDirectory(prefix="pooler-") as name:
        folder, listen, owner = Path(name), free_port(), Path(source.host).stat().st_uid
        values = {"dbname": source.dbname, "host": source.host, "port": source.port, "mode": request.param}
        (folder / "pgbouncer.ini").write_text(CONFIG.format(**values, listen=listen, folder=folder))
        (folder / "users").write_text(f'"{source.user}" "{source.password}"\n')
        for path in (folder, *folder.iterdir()):
            os.chown(path, owner, -1)
        with subprocess.Popen((command, "--quiet", str(folder / "pgbouncer.ini")), user=owner) as process:
            try:
                pooled = replace(source, host="127.0.0.1", port=str(listen))
                wait_for(lambda: answers(pooled))
                yield pooled
            finally:
                process.terminate()


def answers(postgres: Postgres) -> bool:
    """Whether it takes connections."""
    with suppress(TransientError), postgres.connect():
        return True
    return False


def test_read_only(pooled: Postgres) -> None:
    """It is set after connecting, and so are timeouts."""
    with pooled.connect() as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE made_by_us ()")
        connection.rollback()
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)


def test_all_stages(pooled: Postgres, pipeline: Pipeline, tmp_path: Path) -> None:
    """Every day is exact."""
    results = pipeline.ingest(tmp_path, source=pooled)
    assert [str(result.error) for result in results if result.error] == []
    report = pipeline.reconcile()
    assert report.differences == []
    assert [day.bigquery_rows for day in report.days] == [250] * 3
