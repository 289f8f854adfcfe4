"""Files as manifests name them. Executors use these too, so nothing large is imported here."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredFile:
    """A file of a version: its size in bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


def describe(path: Path) -> StoredFile:
    """A local file as a manifest names it."""
    with path.open("rb") as file:
        return StoredFile(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
