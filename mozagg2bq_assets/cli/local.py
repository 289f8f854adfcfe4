"""`mozagg2bq local`: the embedded stack by hand."""

import shlex
import sys

import click


@click.group()
def local() -> None:
    """The embedded stack: PostgreSQL, S3 and BigQuery on this machine."""


@local.command()
def up() -> None:
    """Start what does not run yet, and say where it is. It stays until `down`."""
    from mozagg2bq_assets.local.stack import Stack

    Stack().keep()
    _print_status()


@local.command()
def down() -> None:
    """End what `up` started. The data stay."""
    from mozagg2bq_assets.local.stack import Stack

    Stack().down()


@local.command()
def status() -> None:
    """Say where each server is; exit 1 unless all run."""
    if not _print_status():
        sys.exit(1)


@local.command()
@click.option(
    "--scale", type=click.FloatRange(min=0, min_open=True, max=1), default=0.001, help="Size of a day; a real one is 1."
)
def seed(scale: float) -> None:
    """Replace the sample days, 2019-12-01 and after, in the embedded PostgreSQL."""
    from mozagg2bq_assets.local import sample
    from mozagg2bq_assets.local.stack import Stack

    with Stack().administrator() as connection:
        for name in sample.seed(connection, scale):
            click.echo(name)


def _print_status() -> bool:
    from mozagg2bq_assets.local.stack import Stack

    stack = Stack()
    where = stack.status()
    for name, place in where.items():
        click.echo(f"{name:<10}{place or 'not running'}")
    running = all(where.values())
    if running:
        click.echo("its variables, for your shell:")
        click.echo(f". {shlex.quote(str(stack.state_dir / 'env'))}")
    return running
