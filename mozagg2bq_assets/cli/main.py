"""The command's entry: which file has which command, and errors in one line."""

import signal
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from mozagg2bq_assets.cli.options import DEBUG, debug_option
from mozagg2bq_assets.errors import OperatorError, one_line, packages_of

# What DuckDB raises on Ctrl-C, in the place of KeyboardInterrupt.
INTERRUPTED_QUERY = "Query interrupted"


class LazyGroup(click.Group):
    """Import a command when it is called: what one command needs takes long to import, and others do without it.

    `files` has the file of each command, in the order of the help.
    """

    def __init__(self, *arguments: Any, files: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.files = files

    def list_commands(self, context: click.Context) -> list[str]:
        """List the names of all commands."""
        return [*self.files, *super().list_commands(context)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the command of that name."""
        if name not in self.files:
            return super().get_command(context, name)
        # `local` alone needs an extra.
        with packages_of("local"):
            module = import_module(f"mozagg2bq_assets.cli.{self.files[name]}")
        return next(each for each in vars(module).values() if isinstance(each, click.Command) and each.name == name)

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the names of commands, without importing them: that would take seconds at each keystroke."""
        names = [CompletionItem(name) for name in self.list_commands(context) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, context, incomplete)

    def invoke(self, context: click.Context) -> Any:
        """Show an error that an operator can act on in one line, as click does; with --debug let it pass.

        Leave a closed pipe to click, which ends quietly.
        """
        try:
            return super().invoke(context)
        except (OperatorError, OSError, MemoryError) as error:
            if DEBUG in context.meta or isinstance(error, BrokenPipeError):
                raise
            raise click.ClickException(one_line(str(error)) or type(error).__name__) from error
        except RuntimeError as error:
            if str(error) != INTERRUPTED_QUERY:
                raise
            raise click.Abort from error


@click.group(
    "mozagg2bq",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    files={
        "tables": "source",
        "psql": "source",
        "dump": "source",
        "to-parquet": "parquet",
        "show": "parquet",
        "load": "load",
        "verify": "verify",
        "doctor": "doctor",
        "backfill": "backfill",
    },
)
@click.version_option(package_name="mozagg2bq", prog_name="mozagg2bq")
@debug_option
def main() -> None:
    """Move Firefox Telemetry's daily histogram aggregates from PostgreSQL to BigQuery.

    For completion in bash: eval "$(_MOZAGG2BQ_COMPLETE=bash_source mozagg2bq)". For others: zsh_source, fish_source.
    """
    # As on Ctrl-C, a command that is ended leaves neither its folders nor its sessions behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


@main.group(cls=LazyGroup, files={"list": "lake", "verify": "lake", "restore": "restore", "clean": "lake"})
@debug_option
def lake() -> None:
    """Look after what the lake holds."""


@main.group(cls=LazyGroup, files=dict.fromkeys(("distribution", "evolution", "options"), "query"))
@debug_option
def query() -> None:
    """Ask the dashboard's questions, of BigQuery or of the lake."""


@main.group(cls=LazyGroup, files=dict.fromkeys(("up", "down", "status", "seed", "grow"), "local"))
@debug_option
def local() -> None:
    """Run PostgreSQL, S3 and BigQuery on this machine."""
