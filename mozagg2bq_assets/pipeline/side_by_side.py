"""Make things of items in several threads, in the order of the items."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from itertools import islice
from typing import Any, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is used, the next is made in a thread of its own."""
    return side_by_side(_itself, items, 1)


def side_by_side(make: Callable[[Item], Made], items: Iterable[Item], width: int) -> Iterator[Made]:
    """Yield what is made of each item, in their order; `width` of them are made at once, while the next item comes.

    An error that `make` raises comes in its item's turn, one that the iterator raises as soon as it is seen; after that
    no other item is begun. What has begun ends before this does, and `items`, if they are a generator, are closed.
    """
    iterator = iter(items)
    # Not left to Python: the traceback of an error would hold on to a generator, and so to its threads.
    closed = closing(iterator) if isinstance(iterator, Generator) else nullcontext()
    with closed, ThreadPoolExecutor(1) as one, ThreadPoolExecutor(width) as several:
        coming: Future[Item | None] | None = one.submit(next, iterator, None)
        under_way: deque[Future[Made]] = deque()
        while coming or under_way:
            if coming and len(under_way) < width:
                first: list[Future[Any]] = [coming, *islice(under_way, 1)]
                wait(first, return_when=FIRST_COMPLETED)
                if coming.done():
                    item = coming.result()
                    coming = None if item is None else one.submit(next, iterator, None)
                    if item is not None:
                        under_way.append(several.submit(make, item))
                    continue
            yield under_way.popleft().result()


def _itself(item: Item) -> Item:
    return item
