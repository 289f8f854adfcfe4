"""The local stack itself."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from mozagg2bq_assets.local.stack import Stack, isolated, shell_script

pytestmark = pytest.mark.integration

PRODUCTION = {
    "AWS_ENDPOINT_URL_S3": "https://production.invalid",
    "AWS_PROFILE": "production",
    "GOOGLE_CLOUD_PROJECT": "production",
    "HTTPS_PROXY": "http://production.invalid",
    "PGHOST": "production.invalid",
    "POSTGRES_CREDENTIALS_S3_URI": "s3://production/x",
    "SPARK_MASTER": "spark://production.invalid:7077",
}


def pids(stack: Stack) -> dict[str, int]:
    """The process of each server."""
    children = {process.pid: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])}
    folder = str(stack.state_dir.resolve())
    return {
        name: next(pid for pid, line in children.items() if word in line and folder in line)
        for name, word in (("postgres", "-D"), ("s3", "rclone"), ("bigquery", "bigquery_emulator"))
    }


def is_alive(pid: int) -> bool:
    """Whether the process still does anything; a zombie does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_survives_killed_processes(tmp_path: Path) -> None:
    """`up` is safe to repeat, starts again what was killed, keeps addresses, and `down` ends all of it."""
    stack = Stack(tmp_path / "state")
    try:
        first = stack.up()
        assert stack.up() == first
        for pid in pids(stack).values():
            os.kill(pid, signal.SIGKILL)
            while is_alive(pid):
                time.sleep(0.01)
        assert stack.up() == first
        running = pids(stack)
    finally:
        stack.down()
    assert set(stack.status().values()) == {None}
    assert not any(is_alive(pid) for pid in running.values())


def test_production_variables_are_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither `make` targets nor a shell that sources the stack's variables keep any that leads elsewhere."""
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    own = {"POSTGRES_HOST": "here", "NO_PROXY": "127.0.0.1"}
    assert not PRODUCTION.keys() & isolated(own).keys()
    (tmp_path / "env").write_text(shell_script(own))
    shell = subprocess.run(("bash", "-c", f". {tmp_path}/env && env"), capture_output=True, text=True, check=True)
    assert not PRODUCTION.keys() & {line.partition("=")[0] for line in shell.stdout.splitlines()}
    assert "POSTGRES_HOST=here" in shell.stdout


def test_a_shell_finds_the_commands(tmp_path: Path) -> None:
    """`. .local/env` is all that a shell needs for `mozagg2bq` and PostgreSQL's tools."""
    (tmp_path / "env").write_text(shell_script({}))
    script = ". ./env && command -v mozagg2bq pg_dump psql && mozagg2bq --help"
    bare = {
        **{name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ},
        "PATH": "/usr/bin:/bin",
    }
    shell = subprocess.run(("bash", "-c", script), capture_output=True, text=True, check=False, cwd=tmp_path, env=bare)
    assert shell.returncode == 0, shell.stderr
    assert "Usage: mozagg2bq" in shell.stdout
