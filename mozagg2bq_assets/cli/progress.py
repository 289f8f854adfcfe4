"""How far a command is, on stderr: a bar on a terminal, a line every ten seconds elsewhere, nothing with `--quiet`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mozagg2bq_assets.cli.options import QUIET

LINE_SECONDS = 10.0

# Told how much is done, of the total, and what to say of it.
Tell = Callable[[float, str], None]


@contextmanager
def progress(what: str, total: float | None = None) -> Iterator[Tell]:
    """Show how far `what` is, for as long as the block lasts. Without a total there is no bar, only what is said."""
    console = Console(stderr=True)
    if click.get_current_context().meta.get(QUIET):
        yield lambda done, text: None
    elif console.is_terminal:
        with _bar(console, what, total) as tell:
            yield tell
    else:
        with _lines(what, total) as tell:
            yield tell


@contextmanager
def _bar(console: Console, what: str, total: float | None) -> Iterator[Tell]:
    shape = SpinnerColumn() if total is None else BarColumn()
    columns = (TextColumn("{task.description}"), shape, TextColumn("{task.fields[text]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)


@contextmanager
def _lines(what: str, total: float | None) -> Iterator[Tell]:
    """A line is said by a thread, as a step may take long in which nothing is told."""
    said, over = [0.0, ""], Event()

    def tell(done: float, text: str) -> None:
        said[:] = done, text

    def say() -> None:
        while not over.wait(LINE_SECONDS):
            done, text = said
            share = f" {float(done) / total:.0%}" if total else ""
            click.echo(f"{what}{share}: {text or 'at work'}", err=True)

    thread = Thread(target=say, daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        over.set()
        thread.join()
