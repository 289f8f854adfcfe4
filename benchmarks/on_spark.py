"""What a run of a backfill does on Spark, without Dagster: converts the lake's dumps of some days in one job.

    python -m benchmarks.on_spark MASTER TYPE DAYS

The lake has to hold the dumps, as `benchmarks.batch` leaves them. No days are no work: what Spark takes to start.
"""

import os
import sys
from uuid import uuid4

from benchmarks.batch import check, works
from mozagg2bq_assets.batch import convert_on_spark, passing
from mozagg2bq_assets.lake.manifest import Stage
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.transform.spark import session
from mozagg2bq_assets.workspace import workspace


def main(master: str, name: str, count: str) -> None:
    """Run it."""
    os.environ["SPARK_MASTER"] = master
    run_id = str(uuid4())
    with workspace() as folder:
        batch = works(AggregateType.parse(name), int(count), run_id, folder)
        if not batch:
            session().stop()
        converted = convert_on_spark(session, batch, run_id)
        with passing(batch, [Stage.PARQUET], {}, None, converted) as results:
            check(results)


if __name__ == "__main__":
    main(*sys.argv[1:])
