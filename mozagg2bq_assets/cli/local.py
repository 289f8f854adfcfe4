"""`mozagg2bq local`: start, fill and end the embedded stack by hand."""

import math
import shlex
import sys

import click

from mozagg2bq_assets.cli.options import debug_option, json_option, print_json
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack


def _check_number(_: click.Context, __: click.Parameter, value: float) -> float:
    # FloatRange accepts NaN, which is neither below nor above a bound.
    if math.isnan(value):
        raise click.BadParameter("nan is not a number.")
    return value


@click.command()
@debug_option
def up() -> None:
    """Start what does not run yet, and say where it is.

    It stays until `down`.
    """
    Stack().keep()
    _print_status()


@click.command()
@debug_option
def down() -> None:
    """Stop the stack, even while others use it; the data stay."""
    Stack().down()


@click.command()
@json_option
@debug_option
def status(as_json: bool) -> None:
    """Say where each server is; exit 1 unless all run."""
    if as_json:
        where = Stack().status()
        print_json(where)
        running = all(where.values())
    else:
        running = _print_status()
    if not running:
        sys.exit(1)


@click.command()
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=0.001,
    show_default=True,
    callback=_check_number,
    help="Make days of this size; 1 is as large as real ones.",
)
@debug_option
def seed(scale: float) -> None:
    """Replace the sample days in the embedded PostgreSQL.

    They are the fourteen days before today. One is missing for submission_date, and some are shaped as days of 2015 to
    2017 were.
    """
    with Stack().administrator() as connection:
        for name in sample.seed(connection, scale):
            click.echo(name)


@click.command()
@debug_option
def grow() -> None:
    """Add rows to a sample day of build_id.

    The aggregator does that for weeks. The sensor for late data then finds that day.
    """
    with Stack().administrator() as connection:
        for name in sample.grow(connection):
            click.echo(name)


def _print_status() -> bool:
    stack = Stack()
    where = stack.status()
    for name, place in where.items():
        click.echo(f"{name:<10}{place or 'not running'}")
    running = all(where.values())
    if running:
        click.echo("its variables, for your shell:")
        click.echo(f". {shlex.quote(str(stack.state_dir / 'env'))}")
    return running
