"""What `make demo` and `make dev` have in common as commands."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local.services import INTERRUPTS

INTERRUPTED = 130


def run(main: Callable[[], int]) -> NoReturn:
    """Run `main` and exit with what it returns. A UserError takes one line on stderr and exits 1.

    SIGTERM and a closed terminal raise KeyboardInterrupt, as Ctrl-C does, so that a stack ends before the process does.
    """
    for number in INTERRUPTS:
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
