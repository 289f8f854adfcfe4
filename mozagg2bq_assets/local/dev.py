"""`make dev`: the local stack with sample data, and `dagster dev`, until interrupted."""

import subprocess
import sys
from contextlib import suppress

import click

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT, Stack, running

PORT = "3000"


def main() -> None:
    """Run it."""
    stack = Stack()
    with running(stack):
        with stack.administrator() as connection:
            if not sample.is_there(connection):
                for _ in sample.seed(connection):
                    pass
        click.echo(
            f"Dagster: http://127.0.0.1:{PORT}; the stack's variables for another shell: . {stack.state_dir / 'env'}"
        )
        with suppress(KeyboardInterrupt):
            subprocess.run((sys.executable, "-m", "dagster", "dev", "--port", PORT), cwd=ROOT, check=False)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
