"""How far a command is, on stderr: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--quiet`."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import click

from mozagg2bq_assets.cli.options import is_quiet

LINE_SECONDS = 10.0

# Told how much is done, of the total, and what to say of it.
Tell = Callable[[float, str], None]


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[Tell]:
    """Show how far `what` is, for as long as the block lasts. Without a total there is no bar, only what is said."""
    if is_quiet():
        yield lambda done, text: None
    elif sys.stderr.isatty():
        with _bar(what, total) as tell:
            yield tell
    else:
        with _lines(what, total) as tell:
            yield tell


@contextmanager
def _bar(what: str, total: float | None) -> Iterator[Tell]:
    # Only here, as it takes a tenth of a second to import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shape = SpinnerColumn() if total is None else BarColumn(bar_width=20)
    columns = (TextColumn("{task.description}"), shape, TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)


@contextmanager
def _lines(what: str, total: float | None) -> Iterator[Tell]:
    """A thread prints the lines, as a long step may not call `tell` for a while."""
    said, over = "at work", Event()

    def tell(done: float, text: str) -> None:
        nonlocal said
        said = f"{done / total:.0%}, {text}" if total else text

    def say() -> None:
        while not over.wait(LINE_SECONDS):
            click.echo(f"{what}: {said}", err=True)

    thread = Thread(target=say, daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        over.set()
        thread.join()
