"""Manifests: what one immutable version of a stage's day consists of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.schema import AggregateType


class Stage(StrEnum):
    """A stage of a day. What the last makes is in BigQuery: its versions have no files and record what was loaded."""

    RAW_DUMP = "raw_dump"
    PARQUET = "parquet"
    BIGQUERY_TABLE = "bigquery_table"


@dataclass(frozen=True)
class StoredFile:
    """A file of a version: its size in bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Run:
    """Who writes: the run, the first run that it repeats (itself, mostly), and the backfill they belong to, if any."""

    run_id: str
    root_run_id: str
    backfill_id: str | None = None

    def continues(self, other: "Run") -> bool:
        """Whether what the other run committed need not be done again: both repeat one run, or are of one backfill."""
        return self.root_run_id == other.root_run_id or (
            self.backfill_id is not None and self.backfill_id == other.backfill_id
        )


@dataclass(frozen=True)
class Manifest:
    """One version of one day of a stage.

    `rows` counts by source table (raw_dump) or by `channel version` (the others). `details` says what it was made from
    and with: the source's snapshot or the raw dump's version, tools and their versions, keys without a column.
    """

    stage: Stage
    aggregate_type: AggregateType
    day: date
    version: str
    run: Run
    committed_at: datetime
    ingest_date: date
    files: tuple[StoredFile, ...]
    rows: Mapping[str, int]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def total_rows(self) -> int:
        """Rows of the day."""
        return sum(self.rows.values())

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """The manifest as text, with a checksum of its own."""
        values = asdict(self)
        return json.dumps({"sha256": _checksum(values), **values}, default=str, indent=1)

    @classmethod
    def from_json(cls, text: bytes, where: str) -> "Manifest":
        """Read a manifest back. Raises DataError, naming `where`, if a byte of it has changed."""
        try:
            values = json.loads(text)
            if values.pop("sha256") != _checksum(values):
                raise ValueError("its checksum does not match")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where}: damaged manifest: {error}") from error
        return cls(
            **{
                **values,
                "stage": Stage(values["stage"]),
                "aggregate_type": AggregateType(values["aggregate_type"]),
                "day": date.fromisoformat(values["day"]),
                "run": Run(**values["run"]),
                "committed_at": datetime.fromisoformat(values["committed_at"]),
                "ingest_date": date.fromisoformat(values["ingest_date"]),
                "files": tuple(StoredFile(**file) for file in values["files"]),
            }
        )


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def describe(path: Path) -> StoredFile:
    """A local file as a manifest names it."""
    with path.open("rb") as file:
        return StoredFile(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
