"""End what waits on the source, from another thread."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

WATCH_SECONDS = 0.2


@contextmanager
def ended_early(cancelled: Event, end: Callable[[], None], deadline_seconds: float = float("inf")) -> Iterator[None]:
    """Call `end` once, in another thread, if `cancelled` is set or the deadline passes before the block is left."""
    left = Event()

    def watch() -> None:
        deadline = time.monotonic() + deadline_seconds
        while not left.wait(WATCH_SECONDS):
            if cancelled.is_set() or time.monotonic() > deadline:
                end()
                return

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        left.set()
        watcher.join()
