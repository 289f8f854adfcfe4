"""Items made side by side, one flow behind another."""

import threading
import time

import pytest

from mozagg2bq_assets.pipeline.side_by_side import ahead, side_by_side


def test_an_error_waits_for_what_has_begun() -> None:
    """No thread is left, of a flow before the one that fails either, though the error is still held."""
    before, ended = set(threading.enumerate()), list[int]()

    def slow(item: int) -> int:
        time.sleep(item / 10)
        ended.append(item)
        return item

    def fails(item: int) -> int:
        raise ValueError(item)

    with pytest.raises(ValueError, match="1") as error:
        list(side_by_side(fails, ahead(item for item in side_by_side(slow, iter((1, 2, 3)), 3)), 2))
    assert set(threading.enumerate()) <= before
    assert sorted(ended) == [1, 2, 3]
    assert error.traceback
