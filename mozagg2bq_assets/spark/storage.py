"""Where Spark's tasks find files and leave them: the lake, or folders that every executor sees."""

import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import uuid4

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import new_version
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.parquet.converter import Converted, FileReference, StoredParquet
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.settings import LakeSettings
from mozagg2bq_assets.spark.job import TaskOutput


@dataclass(frozen=True)
class LakeStorage:
    """The driver's lake, with the executor's own credentials; every file is a version of its own."""

    settings: LakeSettings
    run_id: str

    def fetch(self, reference: FileReference, directory: Path) -> Path:
        """Download it."""
        return _lake(self.settings).download(reference.location, directory, reference.file)

    def store(self, path: Path, partition: Partition) -> str:
        """Upload it beside the partition's versions; the commit removes those that the manifest does not name."""
        lake = _lake(self.settings)
        folder = lake.key(Stage.PARQUET, partition.path, new_version(self.run_id))
        lake.upload([path], folder)
        return f"{folder}/{path.name}"

    def as_converted(self, output: TaskOutput) -> Converted:
        """In the lake, under the version that its key names."""
        version = Path(output.stored.location).parent.name
        return StoredParquet(version, output.stored.file, output.rows, output.unmapped, output.seconds)


@cache
def _lake(settings: LakeSettings) -> Lake:
    """One for all tasks of an executor's process: making its client takes as long as converting a small table."""
    return Lake(settings)


@dataclass(frozen=True)
class FolderStorage:
    """A folder for results; files are read where they are."""

    folder: Path

    def fetch(self, reference: FileReference, directory: Path) -> Path:
        """The file itself."""
        path = Path(reference.location)
        if not path.is_file() or replace(describe(path), name=reference.file.name) != reference.file:
            raise DataError(f"{path}: missing or changed; every executor has to see this folder")
        return path

    def store(self, path: Path, partition: Partition) -> str:
        """Move it there."""
        return str(shutil.move(path, self.folder / f"{uuid4()}.parquet"))

    def as_converted(self, output: TaskOutput) -> Converted:
        """A file in that folder."""
        return ParquetFile(Path(output.stored.location), output.rows, output.unmapped, output.seconds)
