"""Manifests: what one immutable version of a partition's stage consists of, one model for each stage."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from mozagg2bq_assets.errors import DataError, OperatorError, brief
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts, UnmappedKey
from mozagg2bq_assets.model.files import StoredFile
from mozagg2bq_assets.model.partitions import Partition, Stage, remedy
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.updates import SourceState


class DamagedVersion(DataError):
    """A version in the lake that is not as it was committed: `what` is wrong with a manifest or a file of `stage`."""

    def __init__(self, what: str, partition: Partition, stage: Stage) -> None:
        super().__init__(f"{what}: {remedy(partition, stage)}")
        self.what, self.stage = what, stage


def without_remedy(error: OperatorError) -> str:
    """What an error says, for a report that adds the remedy by itself."""
    return error.what if isinstance(error, DamagedVersion) else str(error)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Sourced(_Model):
    """`source` is the partition's state in the dumped snapshot; manifests that 0.1.0 wrote may lack it."""

    source: SourceState | None = None


class DumpDetails(_Sourced):
    """What a dump was taken from: the snapshot, when, for how many seconds it was held, its rows, and the tool.

    `left_out` are columns of source tables that do not go on to Parquet, and the number of tables that have them.
    """

    snapshot: str
    taken_at: datetime
    snapshot_held_seconds: float
    rows_in_snapshot: TableCounts
    left_out: dict[str, NonNegativeInt] = {}
    pg_dump: str


class ParquetDetails(_Sourced):
    """What a Parquet file was made from and with: the version of the dump, the engine, keys without a column.

    Of these the most frequent are named, and the others are `more_unmapped_keys`.
    """

    raw_dump: str
    engine: str
    duckdb: str
    unmapped_keys: dict[str, UnmappedKey]
    more_unmapped_keys: NonNegativeInt = 0


class LoadDetails(_Sourced):
    """What was loaded: the version of the Parquet file."""

    parquet: str


# A name of one path segment that leads neither up nor elsewhere.
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"


def _checked_file(file: StoredFile) -> StoredFile:
    """Raises ValueError unless it may be a file of a version."""
    if not re.match(_NAME, file.name) or file.size < 0 or not re.fullmatch("[0-9a-f]{64}", file.sha256):
        raise ValueError("not a file of a version")
    return file


Rows = TypeVar("Rows", TableCounts, ChannelCounts)
Details = TypeVar("Details", DumpDetails, ParquetDetails, LoadDetails)


class Manifest(_Model, Generic[Rows, Details]):
    """One version of one partition's stage; `of` is the stage that a class is for."""

    of: ClassVar[Stage]

    stage: Stage
    aggregate_type: AggregateType
    day: date
    version: Annotated[str, Field(pattern=_NAME)]
    run: Run
    committed_at: datetime
    ingest_date: date
    files: tuple[Annotated[StoredFile, AfterValidator(_checked_file)], ...]
    rows: Rows
    details: Details

    @property
    def partition(self) -> Partition:
        """Whose version it is."""
        return Partition(self.aggregate_type, self.day)

    @property
    def total_size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> str:
        """The manifest as text, with a checksum of its own."""
        values = self.model_dump(mode="json")
        return json.dumps({"sha256": _checksum(values), **values}, indent=1)

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Self:
        """Read a manifest back. Raises DataError, naming `where`, if it is not what `to_json` writes."""
        try:
            values = json.loads(text)
            if values.pop("sha256") != _checksum(values):
                raise ValueError("its checksum does not match")
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{where}: damaged manifest: {place[:100]}: {first['msg'][:200]}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{where}: damaged manifest: {brief(str(error))}") from error


class DumpManifest(Manifest[TableCounts, DumpDetails]):
    """A version of a raw dump: `toc.dat`, `toc.list` and the data files; rows by source table."""

    of: ClassVar[Stage] = Stage.RAW_DUMP

    stage: Literal[Stage.RAW_DUMP] = Stage.RAW_DUMP


class ParquetManifest(Manifest[ChannelCounts, ParquetDetails]):
    """A version of a Parquet file: rows by `channel version`."""

    of: ClassVar[Stage] = Stage.PARQUET

    stage: Literal[Stage.PARQUET] = Stage.PARQUET


class LoadManifest(Manifest[ChannelCounts, LoadDetails]):
    """The record of a load into BigQuery: it has no files; rows by `channel version`."""

    of: ClassVar[Stage] = Stage.BIGQUERY_TABLE

    stage: Literal[Stage.BIGQUERY_TABLE] = Stage.BIGQUERY_TABLE


StageManifest: TypeAlias = DumpManifest | ParquetManifest | LoadManifest
AnyManifest = TypeVar("AnyManifest", bound=StageManifest)

MANIFESTS: tuple[type[StageManifest], ...] = (DumpManifest, ParquetManifest, LoadManifest)


def _checksum(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
