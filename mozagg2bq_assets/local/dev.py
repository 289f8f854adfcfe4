"""`make dev`: the local stack with sample data, and `dagster dev`, until interrupted."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import click

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT, Stack, running_stack

PORT = "3000"


def main() -> None:
    """Run it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stack = Stack()
    with suppress(KeyboardInterrupt), running_stack(stack):
        with stack.administrator() as connection:
            if not sample.is_there(connection):
                for _ in sample.seed(connection):
                    pass
        env = stack.state_dir / "env"
        click.echo(f"Dagster: http://127.0.0.1:{PORT}; the stack's variables, for another shell: . {env}")
        dagster_dev()


def dagster_dev() -> None:
    """Run `dagster dev` until it ends or this process is interrupted, and leave nothing of it behind."""
    # Not in this folder: it would remark that DAGSTER_HOME's dagster.yaml is used, and not the one here.
    workspace = ROOT / "workspace.yaml"
    process = subprocess.Popen(
        (sys.executable, "-m", "dagster", "dev", "--port", PORT, "--workspace", str(workspace)),
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
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
