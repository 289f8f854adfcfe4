"""What a run of a backfill does on Spark, without Dagster: converts the lake's dumps of some days in one job.

    python -m benchmarks.on_spark MASTER TYPE DAYS

The lake has to hold the dumps, as `benchmarks.ingest_days` leaves them. With DAYS = 0 it only starts Spark and stops
it, to time that.
"""

import os
import sys
from functools import partial

from benchmarks.ingest_days import new_writer, partitions, run
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.pipeline.ingest import Services
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import SparkSettings
from mozagg2bq_assets.spark.job import SparkConverter
from mozagg2bq_assets.spark.session import open_session, spark_config
from mozagg2bq_assets.spark.storage import LakeStorage


def main(master: str, name: str, count: str) -> None:
    """Run it."""
    os.environ["SPARK_MASTER"] = master
    start = partial(open_session, spark_config(SparkSettings.read()))
    wanted = partitions(name, count)
    if not wanted:
        start().stop()
        return
    writer = new_writer()
    converter = SparkConverter(start, LakeStorage(writer.lake.settings, writer.run.run_id))
    with scratch_folder() as folder:
        run(wanted, [Stage.PARQUET], Services(writer, converter=converter), folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
