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
from mozagg2bq_assets.parquet.converter import Converter, DuckDBConverter, FolderDump
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.postgres.archive import PartitionArchive
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.spark.job import SparkConverter
from mozagg2bq_assets.spark.storage import FolderStorage
from mozagg2bq_assets_tests.helpers.rows import TODAY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Engine: TypeAlias = Callable[[PartitionArchive, Path], ParquetFile]
Value = TypeVar("Value")


def duckdb_engine(archive: PartitionArchive, output: Path) -> ParquetFile:
    """The default engine, under the archive's own date."""
    return _convert(DuckDBConverter, archive, output)


def spark_engine(session: "SparkSession") -> Engine:
    """The engine on Spark, in a session that stays."""
    return lambda archive, output: _convert(
        lambda folder: SparkConverter(lambda: nullcontext(session), FolderStorage(folder)), archive, output
    )


def _convert(make: Callable[[Path], Converter], archive: PartitionArchive, output: Path) -> ParquetFile:
    with TemporaryDirectory(dir=output.parent, prefix=".parts-") as folder:
        ((partition, converted),) = make(Path(folder)).convert([FolderDump(archive)])
        file = value(converted)
        assert partition == archive.partition
        assert isinstance(file, ParquetFile)
        return replace(file, path=file.path.rename(output))


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
    """Dump those partitions and turn each into Parquet, under today's date."""
    return {
        partition.day: engine(replace(found.archive, created=TODAY), folder / f"{partition.day}.parquet")
        for partition, found in dump(source, partitions, folder).items()
    }
