"""Where Spark's tasks find files and leave them: the lake, or folders that every executor sees."""

import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from mozagg2bq_assets import environment
from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.manifest import Manifest, Stage, describe
from mozagg2bq_assets.lake.store import Lake, new_version
from mozagg2bq_assets.pgdump.archive import LIST, TOC, DayArchive, check_definitions, complete_entries, list_archive
from mozagg2bq_assets.schema import SourceTable
from mozagg2bq_assets.transform.exact import UnmappedKeys
from mozagg2bq_assets.transform.kernel import ParquetFile
from mozagg2bq_assets.transform.spark import Located, SourceFile, convert

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class LakeStorage:
    """The lake at a URI, with the executor's own credentials; every file is a version of its own."""

    uri: str
    run_id: str

    def fetch(self, located: Located, directory: Path) -> Path:
        """Download it."""
        return _lake(self.uri).download(located.location, directory, located.file)

    def store(self, path: Path, table: SourceTable) -> str:
        """Upload it beside the day's versions; the commit removes those that the manifest does not name."""
        lake = _lake(self.uri)
        version = lake.version_key(Stage.PARQUET, table.aggregate_type, table.day, new_version(self.run_id))
        lake.upload(path, f"{version}/{path.name}")
        return f"{version}/{path.name}"


@cache
def _lake(uri: str) -> Lake:
    """One for all tasks of an executor's process: making its client takes as long as converting a small table."""
    return Lake.at(environment.s3_client(), uri)


@dataclass(frozen=True)
class FolderStorage:
    """A folder for results; files are read where they are."""

    folder: Path

    def fetch(self, located: Located, directory: Path) -> Path:
        """The file itself."""
        path = Path(located.location)
        if not path.is_file() or replace(describe(path), name=located.file.name) != located.file:
            raise DataError(f"{path}: missing or changed; every executor has to see this folder")
        return path

    def store(self, path: Path, table: SourceTable) -> str:
        """Move it there."""
        return str(shutil.move(path, self.folder / f"{uuid4()}.parquet"))


def source_files(lake: Lake, dump: Manifest, directory: Path) -> list[SourceFile]:
    """The data files of a dump, by its list and its manifest. Raises DataError unless those agree.

    Only the archive's table of contents is fetched, to `directory`: the data files go to the executors.
    """
    listed = replace(dump, files=tuple(file for file in dump.files if file.name in (TOC, LIST)))
    lake.fetch(listed, directory)
    entries = complete_entries(directory, list_archive(directory))
    tables = {entry.dump_id: table for entry in entries if (table := SourceTable.parse(entry.table or ""))}
    files = {file.name.split(".")[0]: file for file in dump.files if file.name not in (TOC, LIST)}
    if files.keys() != tables.keys() or {table.name for table in tables.values()} != dump.rows.keys():
        raise DataError(f"{lake.uri(dump)}: its files, its list and its manifest do not agree")
    check_definitions(directory, tables.values())
    version = lake.version_key(dump.stage, dump.aggregate_type, dump.day, dump.version)
    located = {tables[dump_id]: Located(f"{version}/{file.name}", file) for dump_id, file in files.items()}
    return [SourceFile(file, table, dump.rows[table.name], dump.ingest_date) for table, file in located.items()]


def convert_archive(session: "SparkSession", archive: DayArchive, output: Path) -> ParquetFile:
    """Write all rows of a folder's archive into one Parquet file. Raises DataError, and then there is no file."""
    files = [
        SourceFile(Located(str(file.path.resolve()), describe(file.path)), file.table, None, archive.created)
        for file in archive.data_files
    ]
    with TemporaryDirectory(dir=output.parent.resolve(), prefix=".parts-") as folder:
        result = convert(session, FolderStorage(Path(folder)), files)[archive.day]
        if isinstance(result, DataError):
            raise result
        Path(result.stored.location).rename(output)
    return ParquetFile(output, result.rows, UnmappedKeys.from_dict(result.unmapped))
