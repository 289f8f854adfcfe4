"""The local stack: PostgreSQL, S3 and BigQuery on this machine, and the environment that points at them.

The pipeline knows nothing of it: it is given other endpoints and credentials.
"""

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.credentials import made_up_secrets, write_private, write_service_account
from mozagg2bq_assets.local.postgres import DATABASE, ROLE, PostgresServer, tools_dir
from mozagg2bq_assets.local.services import Service, undisturbed
from mozagg2bq_assets.settings import variables

ROOT = Path(__file__).parents[2]
STATE_DIR = ROOT / ".local"
BUCKET = "lake"
KEPT = "kept"

# Beside the project's own variables, any of these families could lead a client to something real. PG: libpq reads
# PGHOST, PGSERVICE and more.
FOREIGN_PREFIXES = (
    "AWS_", "BIGQUERY_", "BOTO_", "CLOUDSDK_", "DAGSTER_", "GCLOUD_", "GOOGLE_", "HADOOP_", "PG", "PYSPARK_", "SPARK_",
    "STORAGE_EMULATOR_", "YARN_",
)  # fmt: skip


@dataclass(frozen=True)
class Stack:
    """Three servers with all their state in `state_dir`."""

    state_dir: Path = STATE_DIR

    def up(self) -> dict[str, str]:
        """Start what does not run yet, wait until all answer and return the environment. Safe to repeat."""
        with self._lock():
            return self._start()

    def keep(self) -> None:
        """Have it run, as `up` does, and stay when its users have left, until `down`."""
        # Start and mark under one lock. Otherwise the last user could leave in between and stop the unmarked stack.
        with self._lock():
            self._start()
            (self.state_dir / KEPT).touch()

    def down(self) -> None:
        """Stop the servers, even if somebody uses them."""
        if self.state_dir.exists():
            with self._lock():
                self._stop()

    @contextmanager
    def in_use(self) -> Iterator[dict[str, str]]:
        """Up for as long as the block lasts; gives the environment.

        The last user to leave ends it, unless it is to be kept: others may use it at the same time.
        """
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "users").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_SH)
            try:
                yield self.up()
            finally:
                with undisturbed(), self._lock(), suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not (self.state_dir / KEPT).exists():
                        self._stop()

    def _start(self) -> dict[str, str]:
        secret = made_up_secrets(self.state_dir)
        (self.state_dir / "s3" / BUCKET).mkdir(parents=True, exist_ok=True)
        socket_dir = self.postgres.start(secret["POSTGRES_PASS"])
        s3_port = self.s3.start()
        bigquery_port = self.bigquery.start()
        write_service_account(self.state_dir, bigquery_port)
        environment = self._environment(socket_dir, s3_port, bigquery_port, secret)
        write_private(self.state_dir / "env", shell_script(environment))
        write_private(self.state_dir / "environment.json", json.dumps(environment))
        return environment

    def _stop(self) -> None:
        self.bigquery.stop()
        self.s3.stop()
        self.postgres.stop()
        (self.state_dir / KEPT).unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """The environment that `up` returned. Raises UserError unless all three run."""
        if any(state is None for state in self.status().values()):
            raise UserError("the local stack is not running: start it with `mozagg2bq local up`")
        environment: dict[str, str] = json.loads((self.state_dir / "environment.json").read_text())
        return environment

    def administrator(self) -> psycopg.Connection:
        """The source's superuser, who writes sample data."""
        return psycopg.connect(
            host=self.environment()["POSTGRES_HOST"], dbname=DATABASE, user="postgres", autocommit=True
        )

    def status(self) -> dict[str, str | None]:
        """Where each server is; None for one that does not run."""
        s3_port, bigquery_port = self.s3.running_port(), self.bigquery.running_port()
        return {
            "postgres": str(self.postgres.data_dir) if self.postgres.is_running() else None,
            "s3": f"http://127.0.0.1:{s3_port}" if s3_port else None,
            "bigquery": f"http://127.0.0.1:{bigquery_port}" if bigquery_port else None,
        }

    @property
    def postgres(self) -> PostgresServer:
        """The source's server."""
        return PostgresServer(self.state_dir.resolve() / "postgres")

    @property
    def s3(self) -> Service:
        """The lake's server."""
        rclone = str(Path(sys.executable).parent / "rclone")
        folder = str(self.state_dir / "s3")
        secret = made_up_secrets(self.state_dir)
        return Service(
            "s3",
            self.state_dir,
            lambda port: (rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", folder),
            # By environment: an argument would show in the list of processes.
            {
                # Quoted, since rclone splits the variable at commas into several pairs.
                "RCLONE_AUTH_KEY": f'"{secret["AWS_ACCESS_KEY_ID"]},{secret["AWS_SECRET_ACCESS_KEY"]}"',
                "RCLONE_CONFIG": os.devnull,
            },
        )

    @property
    def bigquery(self) -> Service:
        """The emulator."""
        python = str(ROOT / ".venv-bigquery" / "bin" / "python")
        script = str(Path(__file__).with_name("bigquery_emulator.py"))
        data_dir = str(self.state_dir / "bigquery")
        return Service("bigquery", self.state_dir, lambda port: (python, script, str(port), data_dir), {})

    def _environment(
        self, socket_dir: str, s3_port: int, bigquery_port: int, secret: Mapping[str, str]
    ) -> dict[str, str]:
        dagster_home = self.state_dir / "dagster"
        dagster_home.mkdir(exist_ok=True)
        shutil.copy(ROOT / "dagster.yaml", dagster_home)
        return {
            **secret,
            "POSTGRES_HOST": socket_dir,
            "POSTGRES_PORT": "5432",
            "POSTGRES_DB": DATABASE,
            "POSTGRES_USER": ROLE,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "LAKE_URI": f"s3://{BUCKET}/mozagg2bq",
            "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{bigquery_port}",
            "PARTITIONS_START": self._first_day(),
            "BIGQUERY_PROJECT": "local",
            "BIGQUERY_DATASET": "telemetry",
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.state_dir.resolve() / "service_account.json"),
            # Otherwise the daemon submits 25 runs of a backfill before it looks again whether that is canceled.
            "DAGSTER_ASSET_BACKFILL_RUN_CHUNK_SIZE": "1",
            "DAGSTER_HOME": str(dagster_home.resolve()),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def _first_day(self) -> str:
        """The first sample day when this stack was first started: from there on, each day may have data."""
        path = self.state_dir / "partitions_start"
        if not path.exists():
            write_private(path, sample.days().start.isoformat())
        return path.read_text()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time. The kernel gives the lock back when its holder dies."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def isolated(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with every endpoint and credential replaced by those of `environment`."""
    ours = variables()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(FOREIGN_PREFIXES) and not name.lower().endswith("_proxy") and name not in ours
    }
    path = f"{tools_dir()}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, **environment, "PATH": path}


def shell_script(environment: Mapping[str, str]) -> str:
    """The same for a shell to source."""
    foreign = "|".join(FOREIGN_PREFIXES)
    lines = [
        f"unset $(env | sed -nE 's/^(({foreign})[A-Za-z0-9_]*|[A-Za-z]+_(proxy|PROXY))=.*/\\1/p')",
        f"unset {' '.join(variables())}",
        *(f"export {name}={shlex.quote(value)}" for name, value in environment.items()),
        f'export PATH={shlex.quote(str(tools_dir()))}:{shlex.quote(str(Path(sys.executable).parent))}:"$PATH"',
    ]
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def running_stack(stack: Stack) -> Iterator[None]:
    """The stack for as long as the block lasts, with this process's environment pointing at it and at nothing else."""
    with stack.in_use() as environment:
        ours = isolated(environment)
        os.environ.clear()
        os.environ.update(ours)
        yield
