"""The command's entry: which file has which command, and errors as one line."""

import sys
import traceback
from importlib import import_module

import click

from mozagg2bq_assets.errors import OperatorError

# The file of each command, in the order of the help.
COMMANDS = {
    "tables": "source",
    "psql": "source",
    "dump": "source",
    "to-parquet": "parquet",
    "show": "parquet",
    "load": "load",
    "verify": "verify",
    "backfill": "backfill",
    "local": "local",
}


class LazyGroup(click.Group):
    """Commands that are imported when they are called: what one needs may take longer than what another does."""

    def list_commands(self, _: click.Context) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, _: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        if name not in COMMANDS:
            return None
        module = import_module(f"mozagg2bq_assets.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command


@click.group(cls=LazyGroup, epilog="--debug, anywhere, shows the traceback of an error.")
def cli() -> None:
    """Move Firefox Telemetry's daily histogram aggregates from PostgreSQL to BigQuery."""


def main() -> None:
    """Run a command: errors as one line, exit 1; with --debug as they are."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        cli.main([argument for argument in arguments if argument != "--debug"], prog_name="mozagg2bq")
    except OperatorError as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
