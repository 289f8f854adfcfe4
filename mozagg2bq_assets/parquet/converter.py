"""What every engine follows: dumps in, a Parquet file or an error for each partition out. And the default engine.

Which engine a run or a command takes is chosen in `defs.assets` and `cli.parquet`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from mozagg2bq_assets.errors import Attempt, OperatorError, machine_errors
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts, UnmappedKeys
from mozagg2bq_assets.model.files import StoredFile, describe
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.parquet.writer import PARQUET_FILE, ParquetFile, write_parquet
from mozagg2bq_assets.postgres.archive import PartitionArchive
from mozagg2bq_assets.scratch import machine_lock


class Engine(StrEnum):
    """What turns dumps into Parquet. Dagster's run configuration knows a member by its name, not by its value."""

    duckdb = "duckdb"
    spark = "spark"


@dataclass(frozen=True)
class FileReference:
    """A file and where it is stored: its path, or its key in the lake."""

    location: str
    file: StoredFile


@dataclass(frozen=True)
class SourceFile:
    """A table's data file, its columns, and the rows it should have; `rows` is None where they were not counted."""

    source: FileReference
    table: SourceTable
    columns: tuple[str, ...]
    rows: int | None
    ingest_date: date


@dataclass(frozen=True)
class StoredParquet:
    """A partition's Parquet file that is in the lake already, as a version that no manifest names yet.

    `seconds` is the time that it took, all machines together.
    """

    version: str
    file: StoredFile
    rows: ChannelCounts
    unmapped: UnmappedKeys
    seconds: float


Converted: TypeAlias = ParquetFile | StoredParquet


class Dump(Protocol):
    """A partition's dump, wherever it lies. `rows` has what its tables should hold, None where that is not known."""

    @property
    def partition(self) -> Partition:
        """Whose rows it holds."""

    @property
    def ingest_date(self) -> date:
        """UTC day it was taken."""

    @property
    def rows(self) -> TableCounts | None:
        """Rows of each table, or None where they were not counted."""

    def archive(self) -> PartitionArchive:
        """The dump as a folder of this machine. Raises DataError where it is damaged."""

    def files(self) -> Sequence[SourceFile]:
        """Its data files, wherever other machines can read them. Raises DataError where it is not complete."""


class Converter(Protocol):
    """An engine."""

    @property
    def engine(self) -> Engine:
        """Which it is."""

    def convert(self, dumps: Iterable[Dump]) -> Iterator[tuple[Partition, Attempt[Converted]]]:
        """Turn each dump into one Parquet file; a dump that cannot be converted does not make others fail.

        An engine takes dumps as it can work on them: one by one, or all before it begins. Raises OperatorError for what
        stops the engine itself.
        """


@dataclass(frozen=True)
class DuckDBConverter:
    """In this process, one dump after the other, each as it is asked for. Files lie in `directory/TYPE/YYYYMMDD`.

    A conversion takes all cores, so the processes of one user and TMPDIR convert one at a time.
    """

    directory: Path
    engine: Engine = Engine.duckdb

    def convert(self, dumps: Iterable[Dump]) -> Iterator[tuple[Partition, Attempt[Converted]]]:
        """As `Converter` says; the files are the caller's to remove."""
        for dump in dumps:
            yield dump.partition, self._convert(dump)

    def _convert(self, dump: Dump) -> Attempt[Converted]:
        output = self.directory / dump.partition.path / PARQUET_FILE
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            archive = dump.archive()
            with machine_errors(), machine_lock("converting"):
                return write_parquet(archive, dump.ingest_date, output, dump.rows)
        except OperatorError as error:
            return error


@dataclass(frozen=True)
class FolderDump:
    """A dump in a folder, as `mozagg2bq dump` or pg_dump itself leaves it. Its rows were not counted."""

    folder: PartitionArchive
    rows: None = None

    @property
    def partition(self) -> Partition:
        """Whose rows it holds."""
        return self.folder.partition

    @property
    def ingest_date(self) -> date:
        """The archive's own date."""
        return self.folder.created

    def archive(self) -> PartitionArchive:
        """The folder."""
        return self.folder

    def files(self) -> Sequence[SourceFile]:
        """Its files where they are, which every machine has to see."""
        return [
            SourceFile(
                FileReference(str(file.path.resolve()), describe(file.path)),
                file.table,
                file.columns,
                None,
                self.folder.created,
            )
            for file in self.folder.data_files
        ]
