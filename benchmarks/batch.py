"""What a run of a backfill does, without Dagster: as many days of a type as asked, through dump and Parquet.

    python -m benchmarks.batch TYPE DAYS

Prints the seconds it took after imports.
"""

import sys
import time
from uuid import uuid4

from benchmarks.source import FIRST_DAY, days
from mozagg2bq_assets import environment
from mozagg2bq_assets.lake.manifest import Run, Stage
from mozagg2bq_assets.pgdump.dump import dump_days
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.stages import Day, Outcome, passing
from mozagg2bq_assets.workspace import workspace


def main(name: str, count: str) -> None:
    """Run it."""
    aggregate_type, wanted = AggregateType.parse(name), days(FIRST_DAY, int(count))
    started = time.monotonic()
    run_id = str(uuid4())
    with workspace() as folder:
        works = [
            Day(
                aggregate_type, day, Run(run_id, run_id), 0, environment.lake(), lambda _: False, folder / f"work-{day}"
            )
            for day in wanted
        ]
        dumps = dump_days(environment.postgres(), aggregate_type, wanted, folder)
        with passing(works, (Stage.RAW_DUMP, Stage.PARQUET), dumps, None) as results:
            for work, by_stage in results:
                if not all(isinstance(result, Outcome) for result in by_stage.values()):
                    sys.exit(f"{work}: {by_stage}")
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
