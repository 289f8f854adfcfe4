"""A run of the fuzz harness: 400 damaged archives in CI, 10,000 in the long profile."""

import subprocess
import sys

import pytest
from hypothesis import settings

from mozagg2bq_assets.local.stack import Stack


@pytest.mark.stress
def test_fuzz(stack: Stack) -> None:
    """Every damaged archive ends in the exact rows or in an error of one line, in bounded time and memory."""
    of_each_kind = 10 * settings().max_examples
    command = (sys.executable, "-m", "mozagg2bq_assets_tests.parquet.fuzz", str(of_each_kind), "20191201")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout + result.stderr
