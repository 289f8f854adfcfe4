"""`mozagg2bq to-parquet`, `show`: make a Parquet file of a dump in a folder, and look at some."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import duckdb
import pyarrow.parquet
from pyarrow import ArrowException

from mozagg2bq_assets.cli.options import (
    PathParameter,
    debug_option,
    input_dir_option,
    json_option,
    output_dir_option,
    print_json,
    quiet_option,
)
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.errors import DataError, OperatorError, UserError, packages_of
from mozagg2bq_assets.model.partitions import Partition, parse_day
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import Converter, DuckDBConverter, Engine, FolderDump
from mozagg2bq_assets.parquet.reader import literal
from mozagg2bq_assets.parquet.writer import PARQUET_FILE, ParquetFile
from mozagg2bq_assets.postgres.archive import open_archive


@click.command("to-parquet")
@input_dir_option
@output_dir_option
@click.option(
    "--engine",
    type=click.Choice([engine.value for engine in Engine]),
    default=Engine.duckdb.value,
    show_default=True,
    # The settings have it too, but their libraries take longer to import than a small day to convert.
    envvar="TRANSFORM_ENGINE",
    show_envvar=True,
    help="Let this engine do the work.",
)
@json_option
@quiet_option
@debug_option
def to_parquet(input_dir: Path, output_dir: Path, engine: str, as_json: bool) -> None:
    """Convert one day's archive into one Parquet file.

    INPUT_DIR is what `dump` leaves, and its path ends in TYPE/YYYYMMDD. The file is OUTPUT_DIR/aggregates.parquet.
    """
    archive = open_archive(input_dir, _partition(input_dir))
    output_dir.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output_dir.resolve(), prefix=".parts-") as work, progress("converting") as tell:
        size = sum(file.path.stat().st_size for file in archive.data_files)
        tell(0, f"{len(archive.data_files)} tables, {size / 1e6:,.1f} MB")
        ((_, converted),) = _converter(Engine(engine), Path(work)).convert([FolderDump(archive)])
        if isinstance(converted, OperatorError):
            raise converted
        if not isinstance(converted, ParquetFile):
            raise TypeError(f"{engine} has left no file in the folder it was given: {converted}")
        target = converted.path.rename(output_dir / PARQUET_FILE)
    if warning := converted.unmapped.warning():
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        print_json({"path": target, "rows": converted.rows.total, "unmapped_keys": dict(converted.unmapped)})
    else:
        click.echo(f"{target}: {converted.rows.total:,} rows")


@click.command()
@click.argument("path", type=PathParameter(exists=True))
@json_option
@debug_option
def show(path: Path, as_json: bool) -> None:
    """Print the schema and the first rows of Parquet.

    PATH is a Parquet file, or a folder that holds some.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no Parquet file here")
    try:
        schema = pyarrow.parquet.read_schema(files[0])
        if not as_json:
            for field in schema:
                click.echo(f"{field.name}: {field.type}{'' if field.nullable else ' REQUIRED'}")
        with duckdb.connect() as connection:
            names = [literal(file) for file in files]
            rows = connection.sql(
                "SELECT * FROM read_parquet($files, hive_partitioning = false)", params={"files": names}
            )
            if as_json:
                columns = [{"name": each.name, "type": str(each.type), "nullable": each.nullable} for each in schema]
                print_json({"schema": columns, "rows": rows.limit(10).to_arrow_table().to_pylist()})
            else:
                rows.limit(10).show(max_width=200)
    except (ArrowException, duckdb.Error) as error:
        raise DataError(f"{path}: unreadable Parquet: {str(error).splitlines()[0]}") from error


def _converter(engine: Engine, work: Path) -> Converter:
    """An engine that leaves its files in a folder."""
    match engine:
        case Engine.duckdb:
            return DuckDBConverter(work)
        case Engine.spark:
            return _spark_converter(work)


def _spark_converter(work: Path) -> Converter:
    # As with the settings: who converts with DuckDB does not wait for these.
    from mozagg2bq_assets.settings import SparkSettings

    with packages_of("spark"):
        from mozagg2bq_assets.spark import job, session, storage
    config = session.spark_config(SparkSettings.read())
    return job.SparkConverter(partial(session.open_session, config), storage.FolderStorage(work))


def _partition(folder: Path) -> Partition:
    """The partition that a folder's path names."""
    try:
        return Partition(AggregateType.parse(folder.resolve().parent.name), parse_day(folder.resolve().name))
    except UserError as error:
        raise UserError(f"{folder}: {error}; the path has to end in TYPE/YYYYMMDD") from None
