"""The image that `make image` has built, without an engine: its commands as its own user, in its own files.

IMAGE names it; without that, these tests are skipped. The source is a server of the version of the image's pg_dump.
"""

import os
import subprocess
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets_tests.helpers.compose import COMPOSE, write_secrets
from mozagg2bq_assets_tests.helpers.debian_postgres import OWNER, PASSWORD, debian_server, debian_tools
from mozagg2bq_assets_tests.helpers.runs import TYPE, job_command

BUILDAH = ("buildah", "--storage-driver", os.environ.get("STORAGE_DRIVER", "vfs"))
DAY = date(2019, 12, 1)
ROWS = 250

pytestmark = pytest.mark.skipif("IMAGE" not in os.environ, reason="`make image` runs it")


@pytest.fixture(scope="module")
def source() -> Iterator[int]:
    """A server with a day of sample data, and a database for Dagster's storage; gives its port."""
    with TemporaryDirectory(prefix="image-source-") as folder:
        access = "host all all 127.0.0.1/32 scram-sha-256\n"
        with debian_server(debian_tools(), Path(folder), access) as port:
            connection = psycopg.connect(
                host="127.0.0.1", port=port, dbname="postgres", user=OWNER, password=PASSWORD, autocommit=True
            )
            with connection:
                sample.create_update_dates(connection)
                for _ in sample.seed_partition(connection, Partition(TYPE, DAY), 0.001):
                    pass
                connection.execute("CREATE DATABASE dagster")
            yield port


class Container:
    """A container of the image, with the services' environment and secrets."""

    def __init__(self, name: str, secrets: Path, environment: dict[str, str]) -> None:
        self.name, self.secrets, self.environment = name, secrets, environment

    def run(self, *command: str, given: str = "") -> str:
        """Run it by the image's entrypoint, as its user, and return what it prints. It has to succeed."""
        options = [f"--env={name}={value}" for name, value in self.environment.items()]
        volume = f"--volume={self.secrets}:/run/secrets:ro"
        result = subprocess.run(
            (*BUILDAH, "run", "--isolation=chroot", volume, *options, self.name, "--", "entrypoint", *command),
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def container(source: int, stack: Stack) -> Iterator[Container]:
    """One, with that source, and the embedded stack's S3 and BigQuery."""
    ours = stack.environment()
    kept = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED", "LAKE_URI")
    network = {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(source),
        "POSTGRES_DB": "postgres",
        "POSTGRES_USER": OWNER,
        "DAGSTER_POSTGRES_HOST": "127.0.0.1",
        "DAGSTER_POSTGRES_PORT": str(source),
        "DAGSTER_POSTGRES_USER": OWNER,
    }
    environment = COMPOSE["services"]["mozagg2bq"]["environment"] | network
    environment |= {name: value for name, value in ours.items() if name in kept or name.startswith("BIGQUERY_")}
    with TemporaryDirectory(prefix="image-secrets-") as folder:
        secrets = Path(folder, "secrets")
        write_secrets(secrets, ours | {"POSTGRES_PASS": PASSWORD}, PASSWORD)
        Path(folder).chmod(0o755)  # the image's user reads them
        command = (*BUILDAH, "from", "--pull-never", os.environ["IMAGE"])
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        try:
            yield Container(name, secrets, environment)
        finally:
            subprocess.run((*BUILDAH, "rm", name), check=True, stdout=subprocess.DEVNULL)


def test_user_and_tools(container: Container) -> None:
    """Nobody's root, and nothing in it builds or installs."""
    assert container.run("id", "--user") == "1000\n"
    assert container.run("sh", "-c", "command -v cc gcc make pip git || true") == ""
    assert container.run("mozagg2bq", "--version").startswith("mozagg2bq, version ")
    assert container.run("pg_dump", "--version").startswith(f"pg_dump (PostgreSQL) {debian_tools().parent.name}.")
    container.run("dagster", "definitions", "validate", "--module-name", "mozagg2bq_assets.definitions")


def test_commands(container: Container) -> None:
    """A session with psql; a day's dump, as Parquet."""
    assert "public | build_id_" in container.run("mozagg2bq", "psql", given="\\dt\n")
    days = ("--aggregate-type", TYPE, "--date", str(DAY))
    assert f"{ROWS} rows" in container.run("mozagg2bq", "dump", *days, "--output-dir", "/data")
    folder = f"/data/{TYPE}/{DAY:%Y%m%d}"
    container.run("mozagg2bq", "to-parquet", "--input-dir", folder, "--output-dir", "/data/parquet")
    assert "13 columns" in container.run("mozagg2bq", "show", "/data/parquet/aggregates.parquet")


def test_job(container: Container) -> None:
    """All stages of a day, in a run that PostgreSQL stores; nothing has to be written beside it."""
    days = DayRange(DAY, DAY + timedelta(days=1))
    container.run("python3", *job_command(TYPE, days)[1:])
    container.run("mozagg2bq", "verify", "--aggregate-type", TYPE, "--date", str(DAY))
    assert container.run("ls", "/opt/dagster").split() == ["dagster.yaml", "workspace.yaml"]
