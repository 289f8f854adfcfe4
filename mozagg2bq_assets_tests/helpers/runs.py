"""Runs of Dagster: in this process, in one of their own, and what such a run leaves."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
from dagster import (
    AssetCheckEvaluation,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    ScheduleEvaluationContext,
    build_schedule_context,
)

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.defs.keys import job_name, stage_key
from mozagg2bq_assets.defs.partitions import range_tags
from mozagg2bq_assets.lake.manifest import AnyManifest, ParquetManifest
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.reconcile import Report, reconcile
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.rows import Rows, parquet_rows

TYPE = AggregateType.BUILD_ID
DAYS = DayRange(date(2019, 12, 1), date(2019, 12, 4))


class Pipeline(NamedTuple):
    """A seeded source, and a lake and a dataset of the test's own."""

    source: psycopg.Connection
    lake: Lake
    warehouse: Warehouse

    def seed(self, days: DayRange = DAYS, scale: float = 0.001) -> None:
        """Fill the source."""
        sample.create_update_dates(self.source)
        for day in days:
            for _ in sample.seed_partition(self.source, Partition(TYPE, day), scale):
                pass

    def run(
        self,
        days: DayRange = DAYS,
        stages: Sequence[Stage] = tuple(Stage),
        backfill: str | None = None,
        engine: str | None = None,
        instance: DagsterInstance | None = None,
    ) -> ExecuteInProcessResult:
        """Materialize stages of consecutive days in one run, on an instance of its own unless one is given."""
        from mozagg2bq_assets.definitions import defs

        with nullcontext(instance) if instance else DagsterInstance.ephemeral() as instance:
            return (
                defs()
                .resolve_job_def(job_name(TYPE))
                .execute_in_process(
                    instance=instance,
                    run_config={"ops": {f"{TYPE}_stages": {"config": {"engine": engine}}}} if engine else None,
                    asset_selection=[stage_key(TYPE, stage) for stage in stages],
                    tags=range_tags(days) | ({"dagster/backfill": backfill} if backfill else {}),
                    raise_on_error=False,
                )
            )

    def ingest(self, folder: Path, days: Iterable[date] = DAYS, versions: int = 1, **changes: Any) -> list[StageResult]:
        """All stages of some days, without Dagster; a run of its own, to which all others have ended."""
        run_id = str(uuid4())
        writer = LakeWriter(self.lake, Run(run_id, run_id), lambda _: False, versions=versions)
        services = Services(
            writer, open_source(read_postgres()), DuckDBConverter(folder / Stage.PARQUET), self.warehouse
        )
        partitions = [Partition(TYPE, day) for day in days]
        return list(ingest(partitions, list(Stage), replace(services, **changes), folder))

    def reconcile(self, days: DayRange = DAYS) -> Report:
        """Everything against everything, with the source's rows counted."""
        return reconcile(self.source, self.lake, self.warehouse, TYPE, days, count_source=True)

    def manifest(self, kind: type[AnyManifest], day: date = DAYS.start) -> AnyManifest:
        """The manifest of a day that has one."""
        manifest = self.lake.read(kind, Partition(TYPE, day))
        assert manifest is not None
        return manifest

    def object_keys(self, stage: Stage, suffix: str, day: date = DAYS.start) -> list[str]:
        """Full keys of a day's objects with that ending."""
        folder = self.lake.key(stage, Partition(TYPE, day).path)
        return [found.key for found in self.lake.list(f"{folder}/") if found.key.endswith(suffix)]

    def flip_bit(self, stage: Stage, suffix: str, day: date) -> str:
        """Change the middle of one of a day's objects; returns its key."""
        key = self.object_keys(stage, suffix, day)[0]
        body = bytearray(self.lake.client.get_object(Bucket=self.lake.bucket, Key=key)["Body"].read())
        body[len(body) // 2] ^= 1
        self.lake.client.put_object(Bucket=self.lake.bucket, Key=key, Body=bytes(body))
        return key

    def waiting_sessions(self) -> int:
        """How many of the source's sessions wait for a lock."""
        (count,) = self.source.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() or (0,)
        return int(count)

    def drop_day(self, day: date) -> None:
        """Drop the source's tables of a day."""
        sample.drop_partition(self.source, Partition(TYPE, day))

    def stored_rows(self, folder: Path, days: DayRange = DAYS) -> Rows:
        """All rows of the Parquet files in the lake; and nothing else is there."""
        rows: Rows = Counter()
        keys = set()
        for day in days:
            manifest = self.manifest(ParquetManifest, day)
            (path,) = self.lake.fetch(manifest, folder)
            rows += parquet_rows(path)
            day_folder = manifest.partition.ds_nodash
            keys |= {f"{day_folder}/{MANIFEST}"}
            keys |= {f"{day_folder}/{manifest.version}/{name}" for name in (path.name, MANIFEST)}
        assert self.lake.objects(Stage.PARQUET, TYPE).keys() == keys
        return rows


def merge(source: psycopg.Connection, table: str, submission_date: str, rows: int = 3) -> None:
    """Merge rows of a submission date into a table, which is made if it is not there, as the aggregator does."""
    with source.transaction():
        if source.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
            sample.create_table(source, table)
        sample.insert(source, table, sample.EDGE_ROWS[:rows])
        source.execute(
            "INSERT INTO table_update_dates VALUES (%s, ARRAY[%s]) ON CONFLICT (tablename)"
            " DO UPDATE SET submission_dates = table_update_dates.submission_dates || excluded.submission_dates",
            (table, submission_date),
        )


def materialized(result: ExecuteInProcessResult) -> dict[str, list[str]]:
    """Days that were materialized, by stage, sorted: several are on their way at once."""
    days: dict[str, list[str]] = {stage: [] for stage in Stage}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        days[event.asset_key.path[1]].append(str(event.partition))
    return {stage: sorted(its_days) for stage, its_days in days.items()}


def checks(result: ExecuteInProcessResult) -> list[AssetCheckEvaluation]:
    """Verdicts of the checks."""
    return list(result.get_asset_check_evaluations())


def failure_of(result: ExecuteInProcessResult) -> str:
    """What the failed run says."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


# Dagster keeps its state storage in one of them, by a weak reference, and fails when that is gone.
_CONTEXTS: list[ScheduleEvaluationContext] = []


def schedule_context(
    definitions: Definitions, instance: DagsterInstance, moment: datetime
) -> ScheduleEvaluationContext:
    """What a schedule gets at that moment."""
    context = build_schedule_context(
        instance=instance, scheduled_execution_time=moment, resources=dict(definitions.resources or {})
    )
    _CONTEXTS.append(context)
    return context


def job_command(aggregate_type: AggregateType, days: DayRange, **tags: str) -> tuple[str, ...]:
    """The command line of a process that takes all those days through all stages in one run."""
    command = ("dagster", "job", "execute", "-m", "mozagg2bq_assets.definitions", "-j", job_name(aggregate_type))
    return (sys.executable, "-m", *command, "--tags", json.dumps(range_tags(days) | tags))


def end_killed_runs(instance: DagsterInstance) -> None:
    """Report them as failed, as run monitoring does when it finds no process."""
    for run in instance.get_runs():
        if not run.is_finished:
            instance.report_run_failed(run)
