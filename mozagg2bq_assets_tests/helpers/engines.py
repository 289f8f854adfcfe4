"""Engines as tests use them: an archive in, a Parquet file at a path out."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mozagg2bq_assets.errors import Attempt, OperatorError
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.parquet.converter import Converter, FolderDump
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.postgres.archive import PartitionArchive
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.spark.job import SparkConverter
from mozagg2bq_assets.spark.storage import FolderStorage
from mozagg2bq_assets_tests.helpers.rows import TODAY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Makes a converter that works in a folder.
Engine: TypeAlias = Callable[[Path], Converter]
Value = TypeVar("Value")


def spark_engine(session: "SparkSession") -> Engine:
    """The engine on Spark, in a session that stays."""
    return lambda folder: SparkConverter(lambda: nullcontext(session), FolderStorage(folder))


def make_parquet(engine: Engine, archives: Sequence[PartitionArchive], folder: Path) -> dict[date, ParquetFile]:
    """A file for each archive, from one call of the converter. Raises what came in the place of one."""
    files = {}
    with TemporaryDirectory(dir=folder, prefix=".parts-") as parts:
        for partition, converted in engine(Path(parts)).convert([FolderDump(archive) for archive in archives]):
            file = value(converted)
            assert isinstance(file, ParquetFile)
            files[partition.day] = replace(file, path=file.path.rename(folder / f"{partition.day}.parquet"))
    return files


def value(attempt: Attempt[Value]) -> Value:
    """What was made. Raises what came in its place."""
    if isinstance(attempt, OperatorError):
        raise attempt
    return attempt


def dump(source: Postgres, partitions: Sequence[Partition], directory: Path) -> dict[Partition, PartitionDump]:
    """The dumps of those partitions that have tables. Raises what came in the place of one."""
    dumps = Dumper(source, directory).dump(partitions)
    return {partition: found for partition, attempt in dumps if (found := value(attempt)) is not None}


def convert(source: Postgres, partitions: Sequence[Partition], folder: Path, engine: Engine) -> dict[date, ParquetFile]:
    """Dump those partitions and turn them into Parquet, under today's date."""
    archives = [replace(found.archive, created=TODAY) for found in dump(source, partitions, folder).values()]
    return make_parquet(engine, archives, folder)
