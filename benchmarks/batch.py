"""What a run of a backfill does, without Dagster: as many days of a type as asked, through dump and Parquet.

    python -m benchmarks.batch TYPE DAYS

Prints the seconds it took after imports.
"""

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from benchmarks.source import FIRST_DAY, days
from mozagg2bq_assets import environment
from mozagg2bq_assets.batch import Result, passing
from mozagg2bq_assets.lake.manifest import Run, Stage
from mozagg2bq_assets.pgdump.dump import dump_days
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.stages import Day, Outcome
from mozagg2bq_assets.workspace import workspace


def main(name: str, count: str) -> None:
    """Run it."""
    aggregate_type, wanted = AggregateType.parse(name), days(FIRST_DAY, int(count))
    started = time.monotonic()
    with workspace() as folder:
        batch = works(aggregate_type, int(count), str(uuid4()), folder)
        dumps = dump_days(environment.postgres(), aggregate_type, wanted, folder)
        with passing(batch, (Stage.RAW_DUMP, Stage.PARQUET), dumps, None) as results:
            check(results)
    print(time.monotonic() - started)


def works(aggregate_type: AggregateType, count: int, run_id: str, folder: Path) -> list[Day]:
    """The first days of the benchmarks' source, as a run works on them."""
    run, lake = Run(run_id, run_id), environment.lake()
    return [
        Day(aggregate_type, day, run, 0, lake, lambda _: False, folder / f"work-{day}")
        for day in days(FIRST_DAY, count)
    ]


def check(results: Iterable[tuple[Day, Mapping[Stage, Result]]]) -> None:
    """End this process unless every stage of every day was committed."""
    for day, by_stage in results:
        if not all(isinstance(result, Outcome) for result in by_stage.values()):
            sys.exit(f"{day}: {by_stage}")


if __name__ == "__main__":
    main(*sys.argv[1:])
