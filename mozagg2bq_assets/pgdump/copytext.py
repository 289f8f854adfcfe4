"""Data files of a directory archive: COPY text, plain or as gzip, closed by an end marker line `\\.`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isal import igzip, isal_zlib

from mozagg2bq_assets.errors import DataError

CHUNK = 2**20

# What pg_dump ends a data file with: the marker, and up to two empty lines.
_END = re.compile(rb"(?:^|\n)\\\.(\n{1,3})$")
_LONGEST_END = 6


@dataclass(frozen=True)
class Scan:
    """What one pass over a data file found: its rows, and a length in bytes that no line exceeds."""

    rows: int
    line_limit: int


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's text. ISA-L checks gzip's CRC, so damage shows as DataError, at the latest at the end of the file."""
    with path.open("rb") as raw:
        try:
            yield igzip.open(raw, "rb") if path.suffix == ".gz" else raw  # type: ignore[no-untyped-call]
        except (EOFError, OSError, isal_zlib.error) as error:  # type: ignore[misc]
            raise DataError(f"{path.name}, near byte {raw.tell()}: damaged gzip data: {error}") from error


def scan(path: Path) -> Scan:
    """Read a data file to its end, count its rows and check what holds it together.

    Raises DataError for damaged gzip data, for an end marker that is missing or not at the end, and unless lines have
    one tab on average (the transform refuses a line with more, so together each has exactly one).
    """
    newlines = tabs = run = longest_run = 0
    tail = b""
    with opened(path) as text:
        while chunk := text.read(CHUNK):
            found = chunk.count(b"\n")
            run = 0 if found else run + 1
            longest_run = max(longest_run, run)
            newlines += found
            tabs += chunk.count(b"\t")
            tail = (tail + chunk)[-_LONGEST_END:]
    if not (end := _END.search(tail)):
        raise DataError(f"{path.name}: the end marker is missing; the file is cut short")
    rows = newlines - len(end.group(1))
    if tabs != rows:
        raise DataError(f"{path.name}, {_first_bad_line(path)}: a row does not have two columns")
    return Scan(rows, (longest_run + 2) * CHUNK)


def lines(path: Path) -> Iterator[bytes]:
    """The rows of a data file, without their newline."""
    with opened(path) as text:
        for line in text:
            if line == b"\\.\n":
                return
            yield line.removesuffix(b"\n")


def _first_bad_line(path: Path) -> str:
    number = 0
    for number, line in enumerate(lines(path), 1):
        if line.count(b"\t") != 1:
            return f"line {number}"
    return f"line {number + 1}: an end marker before the end, so"
