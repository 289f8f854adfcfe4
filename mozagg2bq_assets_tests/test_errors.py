"""What this machine lacks, in one line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mozagg2bq_assets.errors import (
    DISK_IS_FULL,
    MEMORY_IS_SHORT,
    OperatorError,
    TransientError,
    UserError,
    machine_errors,
)


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (lambda: bytes(2**62), UserError, re.escape(MEMORY_IS_SHORT)),
        (lambda: Path("/dev/full").write_text("x"), TransientError, re.escape(DISK_IS_FULL)),
        (lambda: Path("/dev/null/below").mkdir(), UserError, "^/dev/null/below: Not a directory$"),
    ],
    ids=["memory", "disk", "path"],
)
def test_machine_errors(act: Callable[[], object], kind: type[OperatorError], message: str) -> None:
    """With its remedy, and whether it may pass."""
    with pytest.raises(kind, match=message), machine_errors():
        act()
