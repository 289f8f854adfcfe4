"""What a run of a backfill does, without Dagster: as many days of a type as asked, through dump, Parquet and load.

    python -m benchmarks.ingest_days TYPE DAYS FIRST_DAY [STAGE …]

All stages, if none is named. Prints the seconds it took after imports.
"""

import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from uuid import uuid4

from benchmarks.source import FIRST_DAY, days
from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings, RunSettings, read_postgres


def main(name: str, count: str, first: str, *names: str) -> None:
    """Run it."""
    stages = [Stage(each) for each in names] or list(Stage)
    settings = RunSettings.read()
    started = time.monotonic()
    with scratch_folder() as folder:
        services = Services(
            new_writer(),
            open_source(read_postgres()),
            DuckDBConverter(folder / Stage.PARQUET),
            open_warehouse(BigQuerySettings.read()),
            settings.outage_patience_seconds,
            settings.dump_jobs,
            settings.days_in_flight,
        )
        run(partitions(name, count, date.fromisoformat(first)), stages, services, folder)
    print(time.monotonic() - started)


def new_writer() -> LakeWriter:
    """The lake, for a run of its own."""
    run_id = str(uuid4())
    return LakeWriter(Lake(LakeSettings.read()), Run(run_id, run_id), lambda _: False)


def partitions(name: str, count: str, first: date = FIRST_DAY) -> list[Partition]:
    """So many days of a type."""
    return [Partition(AggregateType.parse(name), day) for day in days(first, int(count))]


def run(wanted: Sequence[Partition], stages: Sequence[Stage], services: Services, folder: Path) -> None:
    """Ingest, and end this process at a partition that fails."""
    for result in ingest(wanted, stages, services, folder):
        if result.error is not None:
            sys.exit(str(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
