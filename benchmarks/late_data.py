"""What watching the full catalog takes: 199,558 source tables and 3,532 days that are loaded.

    python -m benchmarks.late_data

Makes a stack of its own (some five minutes, 4 GB in TMPDIR). The tables are empty, and the manifests are put into the
lake as runs leave them; what is measured reads names, records of updates and manifests, and no rows.
"""

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from dagster import DagsterInstance, SensorResult, build_sensor_context

from mozagg2bq_assets.lake.manifest import (
    DumpDetails,
    DumpManifest,
    LoadDetails,
    LoadManifest,
    ParquetDetails,
    ParquetManifest,
    StageManifest,
)
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack, running_stack
from mozagg2bq_assets.model.counts import ChannelCounts, TableCounts
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.updates import SourceState
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.updates import source_states
from mozagg2bq_assets.settings import LakeSettings, read_postgres

DAYS = DayRange(date(2015, 6, 1), date(2020, 4, 1))
TABLES = {AggregateType.SUBMISSION_DATE: 100, AggregateType.BUILD_ID: 13}
BATCH_DAYS = 10


def main() -> None:
    """Prepare, measure, and print a line for each figure."""
    with TemporaryDirectory(prefix="late-") as folder:
        stack = Stack(Path(folder))
        with running_stack(stack), stack.administrator() as connection:
            os.environ["PARTITIONS_START"] = str(DAYS.start)
            timed("prepared", partial(make_tables, connection))
            timed("loaded", put_manifests)
            measure(connection)


def timed(what: str, step: Callable[[], Any]) -> Any:
    """Print how long it takes."""
    started = time.monotonic()
    result = step()
    print(f"{what}: {time.monotonic() - started:.2f} s", flush=True)
    return result


def partitions(aggregate_type: AggregateType) -> list[Partition]:
    """All days of a type."""
    return [Partition(aggregate_type, day) for day in DAYS]


def make_tables(connection: psycopg.Connection) -> None:
    """Empty tables, without indexes, and their records."""
    sample.create_update_dates(connection)
    for aggregate_type, count in TABLES.items():
        for each in partitions(aggregate_type):
            names = sample.table_names(each, count)
            statements = [f'CREATE TABLE "{name}" (dimensions jsonb, histogram bigint[])' for name in names]
            connection.execute("; ".join(statements).encode())
            with connection.cursor() as cursor:
                rows = [(name, [each.ds_nodash]) for name in names]
                cursor.executemany("INSERT INTO table_update_dates VALUES (%s, %s)", rows)
    connection.execute("VACUUM ANALYZE pg_class")
    connection.execute("VACUUM ANALYZE table_update_dates")


def put_manifests() -> None:
    """What runs over all days would have left, but for files and rows."""
    lake = Lake(LakeSettings.read())
    with open_source(read_postgres()).connect() as connection, ThreadPoolExecutor(16) as pool:
        for aggregate_type in AggregateType:
            states = source_states(connection, partitions(aggregate_type))
            list(pool.map(lake.publish, (m for p, state in states.items() for m in manifests(p, state))))


def manifests(partition: Partition, state: SourceState) -> Iterator[StageManifest]:
    """Of all stages of a day."""
    common: dict[str, Any] = {
        "aggregate_type": partition.aggregate_type,
        "day": partition.day,
        "run": Run("run", "run"),
        "committed_at": datetime.now(UTC),
        "ingest_date": partition.day,
        "files": (),
    }
    rows = TableCounts(dict.fromkeys(state.tables, 0))
    details = DumpDetails(
        snapshot="1-1",
        taken_at=datetime.now(UTC),
        snapshot_held_seconds=1,
        rows_in_snapshot=rows,
        pg_dump="18",
        source=state,
    )
    yield DumpManifest(**common, version="run.1", rows=rows, details=details)
    parquet = ParquetDetails(raw_dump="run.1", engine="duckdb", duckdb="2", unmapped_keys={}, source=state)
    yield ParquetManifest(**common, version="run.2", rows=ChannelCounts(), details=parquet)
    yield LoadManifest(
        **common, version="run.3", rows=ChannelCounts(), details=LoadDetails(parquet="run.2", source=state)
    )


def measure(connection: psycopg.Connection) -> None:
    """Ticks of one type's sensor, and the reconciliation."""
    from mozagg2bq_assets.definitions import defs
    from mozagg2bq_assets.defs import late_data

    definitions = defs()
    resources = dict(definitions.resources or {})
    with DagsterInstance.local_temp() as instance:

        def tick(cursor: str | None = None) -> SensorResult:
            context = build_sensor_context(
                instance=instance, cursor=cursor, definitions=definitions, resources=resources
            )
            result = definitions.get_sensor_def("submission_date_late_data")(context)
            if not isinstance(result, SensorResult):
                sys.exit(str(result))
            return result

        first = timed("a tick of submission_date in a new process, nothing behind", tick)
        timed("the next tick", partial(tick, first.cursor))
        late_data.CACHE._read.clear()
        timed("a tick of a process that has read no manifest", partial(tick, first.cursor))
        connection.execute(
            b"UPDATE table_update_dates SET submission_dates = submission_dates || '{20200401}'"
            b" WHERE tablename ~ '^submission_date_nightly_73_201911[0-3][0-9]$'"
        )
        found = timed("a tick that finds 30 days", partial(tick, first.cursor))
        print(f"  in {len(found.run_requests or [])} run")
        job = definitions.resolve_job_def("reconciliation_job")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        timed("reconciliation of both types", partial(job.execute_in_process, instance=instance, raise_on_error=False))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"  peak memory before {before / 1024:.0f} MB, after {after / 1024:.0f} MB")


if __name__ == "__main__":
    os.environ.setdefault("PARTITIONS_START", str(DAYS.start))
    main()
