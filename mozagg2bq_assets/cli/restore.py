"""`mozagg2bq lake restore`: apart from the lake's other commands, which do without BigQuery's slow import."""

import sys
from datetime import date
from uuid import uuid4

import click

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.cli.options import (
    DayParameter,
    debug_option,
    json_option,
    print_json,
    quiet_option,
    type_option,
)
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.versions import restore_version
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.writer import PARQUET_FILE
from mozagg2bq_assets.pipeline.stages import LocalParquet, Stages
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings, check_all


@click.command()
@type_option(required=True)
@click.option("--date", "day", type=DayParameter(), required=True, help="Restore this day.")
@click.option("--version", help="The version of its Parquet file; by default the newest that is not current.")
@json_option
@quiet_option
@debug_option
def restore(aggregate_type: AggregateType, day: date, version: str | None, as_json: bool) -> None:
    """Make an earlier version of a day current again, and load it.

    Its dump becomes current too, if it is kept. The sensor for late data would ingest the day again: turn it off first.
    """
    check_all(LakeSettings, BigQuerySettings)
    lake, warehouse = Lake(LakeSettings.read()), open_warehouse(BigQuerySettings.read())
    partition = Partition(aggregate_type, day)
    writer = LakeWriter(lake, Run(f"restore-{uuid4()}", "restore"), lambda _: None, versions=sys.maxsize)
    with scratch_folder() as folder, progress("loading"):
        parquet = restore_version(lake, partition, version, folder / "restored")
        local = LocalParquet(parquet.version, folder / "restored" / PARQUET_FILE)
        result = Stages(writer).load(warehouse, partition, local, folder)
    if as_json:
        print_json({"partition": result.location, "rows": result.rows.total, "version": parquet.version})
    else:
        click.echo(f"{result.location}: {result.rows.total:,} rows of version {parquet.version}")
