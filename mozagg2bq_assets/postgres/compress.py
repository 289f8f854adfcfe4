"""Data files as pg_dump leaves them: counted, compressed and hashed in one pass, while pg_dump writes others.

For a full day ISA-L takes 1.6 s of CPU time, with counting and hashing, where pg_dump takes 2.7 s to compress, and
ISA-L's files are smaller: 135 MiB instead of 144. pg_restore finds a file with `.gz` behind its name, whatever the
table of contents says of compression.
"""

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from mozagg2bq_assets.errors import Attempt, DataError
from mozagg2bq_assets.model.files import StoredFile
from mozagg2bq_assets.postgres.copytext import whole_rows

# One keeps up with pg_dump, but not while a day is converted too: then plain files would fill the disk.
THREADS = 2
LEVEL = 1
GZIP = 31  # zlib's number for the largest window and gzip's header

# What pg_dump says, with --verbose and several jobs, when all rows of a table are in its file.
_FINISHED = re.compile(r"finished item (\d+) TABLE DATA ")


@dataclass(frozen=True)
class CompressedFile:
    """A table's rows, and the file that has them."""

    rows: int
    file: StoredFile


@dataclass(frozen=True)
class Compressor:
    """Compresses the data files of a folder in threads of its own, each when pg_dump says that it is finished."""

    directory: Path
    _pool: ThreadPoolExecutor
    _begun: dict[str, "Future[CompressedFile]"] = field(default_factory=dict)

    def hear(self, message: str) -> None:
        """Take note of one of pg_dump's messages."""
        if match := _FINISHED.search(message):
            self._begin(match[1])

    @property
    def rows(self) -> int:
        """Rows of the files that are compressed by now."""
        done = [future for future in list(self._begun.values()) if future.done()]
        return sum(future.result().rows for future in done if future.exception() is None)

    def finish(self) -> dict[str, Attempt[CompressedFile]]:
        """What was made of each file, by dump id; DataError for one that is cut or has a row that is too long.

        With one job pg_dump does not say which files are finished: they all are when it has ended.
        """
        for path in self.directory.glob("*.dat"):
            if path.stem.isdecimal():
                self._begin(path.stem)
        return {dump_id: _outcome(future) for dump_id, future in self._begun.items()}

    def _begin(self, dump_id: str) -> None:
        if dump_id not in self._begun:
            self._begun[dump_id] = self._pool.submit(compress, self.directory / f"{dump_id}.dat")


@contextmanager
def compressor(directory: Path) -> Iterator[Compressor]:
    """A compressor for what pg_dump writes into that folder."""
    with ThreadPoolExecutor(THREADS, "compress") as pool:
        try:
            yield Compressor(directory, pool)
        finally:
            pool.shutdown(cancel_futures=True)


def compress(path: Path) -> CompressedFile:
    """Put `N.dat.gz` in the place of `N.dat`. Raises DataError for a file that is cut, or has too long a row."""
    target = path.with_name(f"{path.name}.gz")
    with path.open("rb") as plain, target.open("wb") as output:
        passing = _Passing(plain, output)
        rows = sum(chunk.count(b"\n") for chunk in whole_rows(passing, path.name))
        stored = StoredFile(target.name, *passing.finish())
    path.unlink()
    return CompressedFile(rows, stored)


class _Passing:
    """Reads a file, and writes what it reads into another one, compressed and hashed."""

    def __init__(self, plain: BinaryIO, output: BinaryIO) -> None:
        self._plain, self._output = plain, output
        self._compressor, self._hash, self._size = isal_zlib.compressobj(LEVEL, wbits=GZIP), hashlib.sha256(), 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        chunk = self._plain.read(size)
        self._write(self._compressor.compress(chunk))
        return chunk

    def finish(self) -> tuple[int, str]:
        """Size and SHA-256 of all that was written."""
        self._write(self._compressor.flush())
        return self._size, self._hash.hexdigest()

    def _write(self, compressed: bytes) -> None:
        self._output.write(compressed)
        self._hash.update(compressed)
        self._size += len(compressed)


def _outcome(future: "Future[CompressedFile]") -> Attempt[CompressedFile]:
    try:
        return future.result()
    except DataError as error:
        return error
