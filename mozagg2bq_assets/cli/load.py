"""`mozagg2bq load`: the command that loads a Parquet file from a folder into BigQuery."""

from datetime import date
from pathlib import Path
from uuid import uuid4

import click

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.cli.options import (
    DayParameter,
    debug_option,
    input_dir_option,
    json_option,
    print_json,
    quiet_option,
    type_option,
)
from mozagg2bq_assets.cli.partitions import check_partitions
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.reader import check_partition
from mozagg2bq_assets.parquet.writer import PARQUET_FILE
from mozagg2bq_assets.pipeline.stages import load_partition
from mozagg2bq_assets.settings import BigQuerySettings


@click.command()
@type_option(required=True)
@click.option(
    "--date", "day", type=DayParameter(), required=True, help="Replace this day, written 2019-12-01 or 20191201."
)
@input_dir_option
@json_option
@quiet_option
@debug_option
def load(aggregate_type: AggregateType, day: date, input_dir: Path, as_json: bool) -> None:
    """Load a Parquet file in the place of one BigQuery partition.

    The file is what `to-parquet` leaves in its OUTPUT_DIR.
    """
    check_partitions([day])
    partition, parquet = Partition(aggregate_type, day), input_dir / PARQUET_FILE
    if not parquet.is_file():
        raise UserError(f"{parquet}: no such file; `mozagg2bq to-parquet` makes it")
    rows = check_partition(parquet, partition)
    warehouse = open_warehouse(BigQuerySettings.read())
    with progress("loading") as tell:
        size = f"{parquet.stat().st_size / 1e6:,.1f} MB"
        tell(0, f"{size}, uploading")
        load_partition(
            warehouse,
            partition,
            parquet,
            f"mozagg2bq-{uuid4()}",
            rows,
            lambda: tell(0, f"{size} uploaded, waiting for BigQuery"),
        )
    if as_json:
        print_json({"partition": warehouse.partition_id(partition), "rows": rows.total})
    else:
        click.echo(f"{warehouse.partition_id(partition)}: {rows.total:,} rows")
