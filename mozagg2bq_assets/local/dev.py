"""`make dev`: the local stack with sample data, and `dagster dev`, until interrupted.

`python -m mozagg2bq_assets.local.dev [PORT]`
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT, Stack, running_stack

DEFAULT_PORT = "3000"


def main(port: str = DEFAULT_PORT, stack: Stack | None = None) -> None:
    """Run it. Raises UserError, before anything is started, where it could not be used."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stack = stack or Stack()
    url = f"http://127.0.0.1:{checked_port(port)}"
    with only_one(stack.state_dir, url), suppress(KeyboardInterrupt), running_stack(stack):
        with stack.administrator() as connection:
            if not sample.is_there(connection):
                for _ in sample.seed(connection):
                    pass
        env = stack.state_dir / "env"
        click.echo(f"Dagster: {url}; the stack's variables, for another shell: . {env}")
        dagster_dev(port)


def checked_port(text: str) -> int:
    """The port. Raises UserError where it is none, or another program listens there."""
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise UserError(f"PORT is {text!r}: a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            other = int(text) + 1 if int(text) < 2**16 - 1 else DEFAULT_PORT
            raise UserError(
                f"port {text} cannot be used ({error.strerror}): `make dev PORT={other}` takes another"
            ) from None
    return int(text)


@contextmanager
def only_one(state_dir: Path, url: str) -> Iterator[None]:
    """Raise UserError while another `make dev` runs on that stack: two daemons would launch each run twice."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "dev").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"`make dev` runs here already, at {file.read()}: open that page, or end it first"
            ) from None
        file.truncate(0)
        file.write(url)
        file.flush()
        yield


def dagster_dev(port: str) -> None:
    """Run `dagster dev` until it ends or this process is interrupted, and leave nothing of it behind."""
    # Not in this folder: it would remark that DAGSTER_HOME's dagster.yaml is used, and not the one here.
    process = subprocess.Popen(
        (sys.executable, "-m", "dagster", "dev", "--port", port, "--workspace", str(ROOT / "workspace.yaml")),
        cwd=os.environ["DAGSTER_HOME"],
        start_new_session=True,
    )
    try:
        process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()


if __name__ == "__main__":
    try:
        main(sys.argv[1] if sys.argv[1:] else DEFAULT_PORT)
    except UserError as error:
        sys.exit(f"error: {error}")
