"""Dumps that are in the lake, as converters take them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.manifest import DumpManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.counts import TableCounts
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.parquet.converter import FileReference, SourceFile
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres.archive import (
    LIST,
    TOC,
    PartitionArchive,
    complete_entries,
    list_archive,
    open_archive,
    read_definitions,
    table_columns,
)


@dataclass(frozen=True)
class LocalDump:
    """This machine's copy of one version of a dump."""

    version: str
    archive: PartitionArchive


@dataclass(frozen=True)
class CommittedDump:
    """One version of a dump in the lake.

    `local` is used if it is a copy of that version and still there; otherwise the version is
    fetched into `directory`.

    `patience` is for a lake that is away.
    """

    lake: Lake
    manifest: DumpManifest
    directory: Path
    patience: Patience
    local: LocalDump | None = None

    @property
    def partition(self) -> Partition:
        """Whose rows it holds."""
        return self.manifest.partition

    @property
    def ingest_date(self) -> date:
        """UTC day it was taken."""
        return self.manifest.ingest_date

    @property
    def rows(self) -> TableCounts:
        """Rows of each table, as its manifest says."""
        return self.manifest.rows

    def archive(self) -> PartitionArchive:
        """The local copy while it is there, or one that is fetched now. Raises DataError for what is damaged."""
        if self.local and self.local.version == self.manifest.version and self.local.archive.directory.exists():
            return self.local.archive
        self._fetch()
        return open_archive(self.directory, self.partition)

    def files(self) -> Sequence[SourceFile]:
        """Its data files in the lake, by its list and its manifest. Raises DataError unless those agree.

        The archive's table of contents alone is fetched, and a local copy is given up: executors fetch the data files.
        """
        self._fetch(only=(TOC, LIST))
        entries = complete_entries(self.directory, list_archive(self.directory))
        tables = {entry.dump_id: table for entry in entries if (table := SourceTable.parse(entry.table or ""))}
        files = {file.name.split(".")[0]: file for file in self.manifest.files if file.name not in (TOC, LIST)}
        if files.keys() != tables.keys() or {table.name for table in tables.values()} != self.rows.keys():
            raise DataError(f"{self.lake.uri(self.manifest)}: its files, its list and its manifest do not agree")
        columns = table_columns(self.directory, read_definitions(self.directory), tables.values())
        folder = self.lake.key(self.manifest.of, self.partition.path, self.manifest.version)
        return [
            SourceFile(
                FileReference(f"{folder}/{file.name}", file),
                tables[dump_id],
                columns[tables[dump_id].name],
                self.rows[tables[dump_id].name],
                self.ingest_date,
            )
            for dump_id, file in files.items()
        ]

    def _fetch(self, only: Sequence[str] | None = None) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.patience.call(lambda: self.lake.fetch(self.manifest, self.directory, only))
