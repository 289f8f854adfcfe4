"""`make dev`: the local stack with sample data, and `dagster dev`, until interrupted.

`python -m mozagg2bq_assets.local.dev [PORT]`
"""

import errno
import fcntl
import os
import shlex
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
from mozagg2bq_assets.local.commands import run
from mozagg2bq_assets.local.services import free_port, undisturbed
from mozagg2bq_assets.local.stack import ROOT, Stack, running_stack

DEFAULT_PORT = 3000
LAST_PORT = 2**16 - 1


def main(port_text: str = str(DEFAULT_PORT), stack: Stack | None = None) -> int:
    """Run it until interrupted. Raises UserError where something cannot start, or if Dagster ends by itself."""
    stack = stack or Stack()
    port = port_number(port_text)
    url = f"http://127.0.0.1:{port}"
    # Lock before port: another `make dev` of this folder has the port too, and the message should say where it is.
    with suppress(KeyboardInterrupt), only_one(stack.state_dir, url) as lock:
        check_port(port)
        with running_stack(stack):
            with stack.administrator() as connection:
                if not sample.is_there(connection):
                    for _ in sample.seed(connection):
                        pass
            env = shlex.quote(str(stack.state_dir / "env"))
            click.echo(f"Dagster: {url}; the stack's variables, for another shell: . {env}")
            dagster_dev(port, lock)
            raise UserError("`dagster dev` ended by itself: its last messages say why")
    return 0


def port_number(text: str) -> int:
    """The port that `text` names. Raises UserError where it names none."""
    # Python refuses to read a number of thousands of digits.
    number = int(text) if text.isdecimal() and len(text) <= len(str(LAST_PORT)) else 0
    if not 0 < number <= LAST_PORT:
        raise UserError(f"PORT is {text!r}; it must be a number from 1 to {LAST_PORT}")
    return number


def check_port(port: int) -> None:
    """Raise UserError where Dagster's page could not be on that port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            other = free_port(port + 1 if port < LAST_PORT else DEFAULT_PORT)
            raise UserError(f"port {port} {why}: `make dev PORT={other}` uses another") from None


@contextmanager
def only_one(state_dir: Path, url: str) -> Iterator[int]:
    """Raise UserError while another `make dev` runs on that stack: two daemons would launch each run twice.

    Gives the descriptor that holds the lock. A process that inherits it holds the lock too.
    """
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
        yield file.fileno()


def dagster_dev(port: int, lock: int) -> None:
    """Run `dagster dev` until it ends or this process is interrupted, and leave nothing of it behind."""
    # In DAGSTER_HOME and not in this folder, where it would warn that this folder's dagster.yaml is not used.
    quiet = "ignore:Function `dev_command` is superseded"
    workspace = str(ROOT / "workspace.yaml")
    process = subprocess.Popen(
        (sys.executable, "-W", quiet, "-m", "dagster", "dev", "--port", str(port), "--workspace", workspace),
        cwd=os.environ["DAGSTER_HOME"],
        start_new_session=True,
        # It outlives this process if that is killed, and its daemon must still be the only one.
        pass_fds=(lock,),
    )
    try:
        process.wait()
    finally:
        if process.poll() is None:
            with undisturbed():
                process.send_signal(signal.SIGINT)
                process.wait()


if __name__ == "__main__":
    run(lambda: main(sys.argv[1]) if sys.argv[1:] else main())
