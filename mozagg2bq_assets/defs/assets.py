"""The assets of the three stages, for each aggregate type."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetExecutionContext,
    AssetMaterialization,
    AssetsDefinition,
    BackfillPolicy,
    Config,
    DagsterInstance,
    DagsterRunStatus,
    DailyPartitionsDefinition,
    Failure,
    Output,
    multi_asset,
)
from pydantic import Field

from mozagg2bq_assets.defs.events import failure_events, recount_events, result_events
from mozagg2bq_assets.defs.keys import ROW_COUNT, stage_key
from mozagg2bq_assets.defs.partitions import partition_key, shortened
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource, SparkResource, WarehouseResource
from mozagg2bq_assets.defs.specs import check_specs, stage_specs
from mozagg2bq_assets.errors import OperatorError, TransientError, machine_errors
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import Converter, DuckDBConverter, Engine
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.postgres.dump import TABLE_BEGUN
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import RunSettings

BACKFILL_ID_TAG = "dagster/backfill"
PROGRESS_SECONDS = 5.0
CANCEL_POLL_SECONDS = 2.0
CAUSES = 3
AGAIN = "when that is mended, re-execute this run, which does not do again what is committed"


class StagesConfig(Config):
    """Run configuration of a type's stages."""

    engine: Engine | None = Field(
        default=None, description="What turns dumps into Parquet; by default what TRANSFORM_ENGINE says."
    )
    accept_shrink: bool = Field(
        default=False,
        description="Also take a day that has fewer rows or tables than its earlier version.",
    )


def daily_stages(
    aggregate_type: AggregateType, daily: DailyPartitionsDefinition, settings: RunSettings
) -> AssetsDefinition:
    """The three stages of a type: a generator that yields its days one by one, so that each stands for itself."""

    @multi_asset(
        name=f"{aggregate_type}_stages",
        specs=stage_specs(aggregate_type, daily),
        check_specs=check_specs(aggregate_type, daily),
        can_subset=True,
        backfill_policy=BackfillPolicy.multi_run(settings.partitions_per_run),
    )
    def stages(
        context: AssetExecutionContext,
        config: StagesConfig,
        postgres: PostgresResource,
        lake: LakeResource,
        bigquery: WarehouseResource,
        spark: SparkResource,
    ) -> Iterator[AssetMaterialization | AssetCheckEvaluation | Output[None]]:
        selected = [stage for stage in Stage if stage_key(aggregate_type, stage) in context.selected_asset_keys]
        if not selected:
            yield from _recounted(context, aggregate_type, settings.partitions_start, lake, bigquery)
            yield from _check_outputs(context)
            return
        partitions = [Partition(aggregate_type, date.fromisoformat(key)) for key in context.partition_keys]
        _tag_with_days(context, aggregate_type)
        failures: dict[Partition, OperatorError] = {}
        taken = Counter[Stage]()
        with _one_line_failure(), scratch_folder() as folder:
            writer = LakeWriter(
                lake.lake(),
                _run(context),
                partial(_is_running, context.instance),
                max_hours=settings.max_run_hours,
                versions=settings.lake_versions,
            )
            engine = config.engine or Engine(settings.engine)
            services = Services(
                writer,
                postgres.source() if Stage.RAW_DUMP in selected else None,
                _converter(engine, spark, writer, folder) if Stage.PARQUET in selected else None,
                bigquery.warehouse() if Stage.BIGQUERY_TABLE in selected else None,
                settings.outage_patience_seconds,
                settings.dump_jobs,
                settings.days_in_flight,
                config.accept_shrink,
                timedelta(hours=settings.source_grace_hours),
            )
            attempt, log, warn = context.op_execution_context.retry_number, _progress_log(context), context.log.warning
            look = _interrupts_again(context)
            for result in ingest(partitions, selected, services, folder, attempt, log, warn, look):
                taken[result.stage] += 1
                line = f"{taken[result.stage]} of {len(partitions)} days, {result}"
                if result.error is None:
                    context.log.log("WARNING" if result.warning else "INFO", f"{line}{_unusual(result)}")
                    yield from result_events(result, context.instance)
                else:
                    context.log.error(line)
                    failures[result.partition] = result.error
                    yield from failure_events(result, context.instance)
        if failures:
            raise _failure(aggregate_type, failures, len(partitions))
        yield from _check_outputs(context)

    return stages


def _converter(engine: Engine, spark: SparkResource, writer: LakeWriter, folder: Path) -> Converter:
    """The engine's converter. Raises UserError before anything is dumped, which may take hours."""
    match engine:
        case Engine.duckdb:
            return DuckDBConverter(folder / Stage.PARQUET)
        case Engine.spark:
            return spark.converter(writer.lake, writer.run.run_id)


def _unusual(result: StageResult) -> str:
    return f": {result.warning}" if result.warning else ""


def _failure(aggregate_type: AggregateType, failures: Mapping[Partition, OperatorError], days: int) -> Failure:
    """Each cause once, the most frequent first, and the days that it has cost."""
    causes: dict[str, list[str]] = {}
    for partition, error in sorted(failures.items()):
        causes.setdefault(str(error), []).append(partition_key(partition))
    listed = [f"{cause} ({shortened(keys)})" for cause, keys in sorted(causes.items(), key=lambda item: -len(item[1]))]
    more = f"; and {len(listed) - CAUSES} other causes: see the log" if len(listed) > CAUSES else ""
    return Failure(
        f"{'; '.join(listed[:CAUSES])}{more}; {len(failures)} of {days} days of {aggregate_type} failed: {AGAIN}"
    )


def _check_outputs(context: AssetExecutionContext) -> Iterator[Output[None]]:
    """Dagster remarks in the log, as if that were a fault, that a check has no output. So it gets one, of nothing."""
    for key in sorted(context.selected_asset_check_keys):
        yield Output(None, context.assets_def.get_output_name_for_asset_check_key(key))


def _recounted(
    context: AssetExecutionContext,
    aggregate_type: AggregateType,
    start: date,
    lake: LakeResource,
    bigquery: WarehouseResource,
) -> Iterator[AssetCheckEvaluation]:
    """A run of checks alone has no days: all that are there are compared again, in the lake and in BigQuery."""
    everything = DayRange(start, datetime.now(UTC).date())
    with _one_line_failure():
        report = reconcile(None, lake.lake(), bigquery.warehouse(), aggregate_type, everything)
    checked = [
        stage
        for stage in Stage
        if AssetCheckKey(stage_key(aggregate_type, stage), ROW_COUNT) in context.selected_asset_check_keys
    ]
    context.log.info(f"counting {len(report.days)} days again")
    for day in report.days:
        for stage in checked:
            yield from recount_events(day, Partition(aggregate_type, day.day), stage, context.instance)


def _tag_with_days(context: AssetExecutionContext, aggregate_type: AggregateType) -> None:
    """Let the list of runs say which days of the type a run takes."""
    context.instance.add_run_tags(context.run.run_id, {aggregate_type.value: shortened(context.partition_keys)})


@contextmanager
def _one_line_failure() -> Iterator[None]:
    """What stops all days at once, as a failure of one line."""
    try:
        with machine_errors():
            yield
    except OperatorError as error:
        raise Failure(f"{error}; {AGAIN}" if isinstance(error, TransientError) else str(error)) from None


def _run(context: AssetExecutionContext) -> Run:
    return Run(context.run.run_id, context.run.root_run_id or context.run.run_id, context.run.tags.get(BACKFILL_ID_TAG))


def _is_running(instance: DagsterInstance, run_id: str) -> bool | None:
    run = instance.get_run_by_id(run_id)
    return None if run is None else not run.is_finished


def _interrupts_again(context: AssetExecutionContext) -> Callable[[], None]:
    """Interrupt this thread if the run is to end: Dagster does so once, and Python drops it in a finalizer."""
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        if time.monotonic() - looked > CANCEL_POLL_SECONDS:
            looked = time.monotonic()
            run = context.instance.get_run_by_id(context.run.run_id)
            if run is not None and run.status is DagsterRunStatus.CANCELING:
                signal.raise_signal(signal.SIGINT)

    return look


def _progress_log(context: AssetExecutionContext) -> Callable[[str], None]:
    """Log all messages but pg_dump's; of those, only that a table has begun, and at most one every few seconds."""
    logged = -PROGRESS_SECONDS

    def log(message: str) -> None:
        nonlocal logged
        if not message.startswith("pg_dump: "):
            context.log.info(message)
        elif message.startswith(TABLE_BEGUN) and time.monotonic() - logged > PROGRESS_SECONDS:
            context.log.info(message)
            logged = time.monotonic()

    return log
