"""The command, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("mozagg2bq"))


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with some variables changed."""
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
