"""The services of compose.yaml as plain processes: their own commands, environment, secrets and health checks."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from mozagg2bq_assets.local.services import free_port
from mozagg2bq_assets.local.stack import ROOT, Stack
from mozagg2bq_assets_tests.helpers.proxies import tcp_proxy

DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
START_SECONDS = 120
# Docker's own, after which it kills what has not ended.
STOP_SECONDS = 10
# The stack's variables that hold a secret, or lead to one: containers have files instead.
_SECRETS = ("POSTGRES_PASS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS")


@dataclass
class Compose:
    """The project's services in this machine's network; `folder` has their logs, secrets and DAGSTER_HOME."""

    folder: Path
    environment: Mapping[str, str]
    network: Mapping[str, str]
    replaced: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """DAGSTER_HOME."""
        return self.folder / "home"

    def command(self, service: str, *arguments: str) -> list[str]:
        """What the container of that service runs; arguments take the place of its command."""
        described = COMPOSE["services"][service]
        entrypoint = described.get("entrypoint", ["entrypoint"])
        return self._here([*entrypoint, *(arguments or described["command"])])

    def variables(self, service: str) -> dict[str, str]:
        """Its environment."""
        given: Mapping[str, str] = COMPOSE["services"][service]["environment"]
        own = dict(zip(given, self._here(given.values()), strict=True))
        return {**self.environment, **own, **self.network}

    def start(self, *services: str) -> None:
        """Start them one after the other, each when the one before it is healthy."""
        for service in services:
            with (self.folder / f"{service}.log").open("ab") as log:
                self.running[service] = subprocess.Popen(
                    self.command(service),
                    env=self.variables(service),
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._wait_until_healthy(service)

    def stop(self, service: str) -> None:
        """As Docker stops a container: its first process gets the signal, and all others end with that one."""
        process = self.running.pop(service)
        process.send_signal(signal.Signals[COMPOSE["services"][service].get("stop_signal", "SIGTERM")])
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, service: str) -> str:
        """What it has said so far."""
        return (self.folder / f"{service}.log").read_text()

    def _wait_until_healthy(self, service: str) -> None:
        kind, *test = COMPOSE["services"][service]["healthcheck"]["test"]
        command = self._here(["sh", "-c", *test] if kind == "CMD-SHELL" else test)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(command, env=self.variables(service), capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, self.log(service)
            assert self.running[service].poll() is None, self.log(service)
            time.sleep(0.5)

    def _here(self, texts: Iterable[str]) -> list[str]:
        """Texts of compose.yaml with this machine's folders and ports."""
        found = []
        for text in texts:
            for theirs, ours in self.replaced.items():
                text = text.replace(theirs, ours)
            found.append(text)
        return found


@contextmanager
def composed(stack: Stack, environment: Mapping[str, str], folder: Path) -> Iterator[Compose]:
    """The services on that stack, whose PostgreSQL is their storage too. None runs yet; none is left."""
    password = str(uuid4())
    with stack.administrator() as connection:
        connection.execute(f"CREATE ROLE dagster LOGIN PASSWORD '{password}'")
        connection.execute("CREATE DATABASE dagster OWNER dagster")
    write_secrets(folder / "secrets", environment, password)
    (folder / "home").mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", folder / "home")
    with tcp_proxy(f"{environment['POSTGRES_HOST']}/.s.PGSQL.5432") as storage:
        values = {name: value for name, value in environment.items() if name not in _SECRETS} | {
            "PATH": os.pathsep.join([str(DEPLOY), str(Path(sys.executable).parent), environment["PATH"]]),
            "DAGSTER_HOME": str(folder / "home"),
        }
        network = {
            "DAGSTER_POSTGRES_HOST": "127.0.0.1",
            "DAGSTER_POSTGRES_PORT": str(storage.port),
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": str(free_port()),
        }
        replaced = {
            "$$": "$",
            "/opt/dagster/": f"{DEPLOY}/",
            "/run/secrets/": f"{folder}/secrets/",
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            "http://webserver:": "http://127.0.0.1:",
            "3000": str(free_port()),
        }
        compose = Compose(folder, values, network, replaced)
        try:
            yield compose
        finally:
            for service in list(compose.running):
                compose.stop(service)


def write_secrets(folder: Path, environment: Mapping[str, str], password: str) -> None:
    """A file for each secret of compose.yaml."""
    folder.mkdir(parents=True)
    contents = dict.fromkeys(COMPOSE["secrets"], "") | {
        "postgres_pass": environment["POSTGRES_PASS"] + "\n",
        "dagster_postgres_password": password + "\n",
        "google_credentials": Path(environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text(),
        "aws_credentials": (
            f"[default]\naws_access_key_id = {environment['AWS_ACCESS_KEY_ID']}\n"
            f"aws_secret_access_key = {environment['AWS_SECRET_ACCESS_KEY']}\n"
        ),
    }
    assert contents.keys() == COMPOSE["secrets"].keys()
    for name, content in contents.items():
        (folder / name).write_text(content)
