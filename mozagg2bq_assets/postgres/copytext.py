"""Data files of a directory archive: COPY text, plain or as gzip, closed by an end marker line `\\.`."""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from isal import igzip, isal_zlib

from mozagg2bq_assets.errors import DataError

# Small enough for a processor's cache, large enough that what is done once for each chunk does not count.
CHUNK = 2**18
# The longest row that is sure to be converted in the memory that there is; BigQuery's advice for its loads is 50 MB. It
# also ends the reading of a small file that decompresses to a row without end.
MAX_ROW_BYTES = 20 * 2**20

# The columns of an aggregate table that are read. It may have others.
COLUMNS = ("dimensions", "histogram")

END = b"\\."
# What pg_dump ends a data file with: the marker, and up to two empty lines.
_END = re.compile(rb"(?:^|(?<=\n))\\\.\n{1,3}$")
_LONGEST_END = 5


class Readable(Protocol):
    """What text is read from."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""


def row_chunks(path: Path) -> Generator[bytes, None, None]:
    """A data file's rows, in chunks of whole rows. Raises DataError as `whole_rows`, and for damaged gzip data."""
    with _opened(path) as text:
        yield from whole_rows(text, path.name)


def whole_rows(text: Readable, name: str) -> Iterator[bytes]:
    """The rows of COPY text, in chunks of whole rows; `name` is for messages.

    Raises DataError for a row of more than MAX_ROW_BYTES and, after the last chunk, where the end marker is missing.
    """
    parts: list[bytes] = []
    while chunk := text.read(CHUNK):
        # Keep the last bytes back: they may be the beginning of the end marker.
        if end := chunk.rfind(b"\n", 0, -_LONGEST_END) + 1:
            yield b"".join((*parts, chunk[:end]))
            parts.clear()
        parts.append(chunk[end:])
        if len(parts) > MAX_ROW_BYTES // CHUNK:
            raise DataError(f"{name}: a row of more than {MAX_ROW_BYTES // 2**20} MiB, which cannot be converted")
    last = b"".join(parts)
    marker = _END.search(last)
    if marker is None:
        raise DataError(f"{name}: the end marker is missing; the file is cut short")
    if marker.start():
        yield last[: marker.start()]


def rows(path: Path) -> Iterator[bytes]:
    """The rows of a data file one by one, without their newline. Raises DataError as `row_chunks` does."""
    for chunk in row_chunks(path):
        yield from chunk[:-1].split(b"\n")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's text. ISA-L checks gzip's CRC, so damage shows as DataError, at the latest at the end of the file."""
    with path.open("rb") as raw:
        try:
            yield igzip.open(raw, "rb") if path.suffix == ".gz" else raw  # type: ignore[no-untyped-call]
        except (EOFError, OSError, isal_zlib.error) as error:  # type: ignore[misc]
            raise DataError(f"{path.name}, near byte {raw.tell()}: damaged gzip data: {error}") from error
