"""Errors that an operator can act on: their text is one line that says what is wrong, and where."""

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

REASON_CHARACTERS = 140
LISTED = 2


def one_line(text: str) -> str:
    """The text, with non-printable characters written as escapes: names and servers' messages may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def brief(text: str, characters: int = REASON_CHARACTERS) -> str:
    """What another program says, for a message of ours: in one line, cut, and without the queries of URLs.

    Those hold ids of uploads and signatures, which say nothing to a reader.
    """
    line = one_line(" ".join(re.sub(r"(https?://[^\s?]+)\?[^\s'\"]*", r"\1", text).split()))
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def some(items: Sequence[str]) -> str:
    """The first two of them, and how many others there are."""
    more = f", and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more


class OperatorError(Exception):
    """What the pipeline raises on purpose, in one line. Which kind it is says who can do something about it."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class UserError(OperatorError):
    """Something the operator has to change: a setting, a permission, an argument."""


class TransientError(OperatorError):
    """Something that may pass without anybody's help: a service that is away, a full disk, a process that was ended.

    Where a client tries again by itself, it has. Repeating the run may help.
    """


# As other programs say it.
NO_SPACE = "No space left on device"
# As we say it.
TOTAL_IS_TOO_LARGE = "a total is beyond 64 bits: ask for fewer rows"
DISK_IS_FULL = "the disk is full: free some room, or use another disk, by TMPDIR or a command's --output-dir"
MEMORY_IS_SHORT = "there is not enough memory: stop other programs on this machine, or use a larger one"


@contextmanager
def machine_errors() -> Iterator[None]:
    """TransientError for a full disk, a lost connection or a timeout; UserError for other OSErrors and MemoryError."""
    try:
        yield
    except MemoryError as error:
        raise UserError(MEMORY_IS_SHORT) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(DISK_IS_FULL) from error
        if isinstance(error, ConnectionError | TimeoutError):
            raise TransientError(brief(str(error)) or type(error).__name__) from error
        raise UserError(f"{error.filename or 'a file'}: {error.strerror or error}") from error


class DataError(OperatorError):
    """Data that is damaged, or missing where it was promised. Names the file or the table."""


class HeldBack(DataError):
    """A day that has shrunk in the source and was not stored, until somebody accepts that; the message says how."""


class CountMismatch(DataError):
    """Two counts that should be equal and are not; `rows` has (name, expected, found) of each that differs."""

    def __init__(self, where: str, rows: Sequence[tuple[str, int, int]]) -> None:
        name, expected, found = rows[0]
        others = f", and {len(rows) - 1} more differ" if len(rows) > 1 else ""
        super().__init__(f"{where}: {name} should have {expected} rows and has {found}{others}")
        self.where, self.rows = where, rows

    def __reduce__(self) -> tuple[type, tuple[str, Sequence[tuple[str, int, int]]]]:
        """For Spark, which pickles it: by default an exception is made anew from its text alone."""
        return type(self), (self.where, self.rows)


class Cancelled(Exception):
    """The caller has asked for the end. Nothing is wrong, so nothing is reported."""


Value = TypeVar("Value")

# What was made of one partition, or why it was not: the error of one is passed on as a value, so others go on.
Attempt: TypeAlias = Value | OperatorError


@contextmanager
def packages_of(extra: str) -> Iterator[None]:
    """UserError for an import that fails, since a package of this extra is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise UserError(f"{package} is not installed: it comes with mozagg2bq[{extra}]") from error
