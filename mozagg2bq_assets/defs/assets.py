"""The assets: for each aggregate type the external source tables, and the three stages that are made from them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path

from dagster import (
    AssetCheckEvaluation,
    AssetExecutionContext,
    AssetMaterialization,
    AssetsDefinition,
    BackfillPolicy,
    Config,
    DagsterInstance,
    DailyPartitionsDefinition,
    Failure,
    multi_asset,
)
from pydantic import Field

from mozagg2bq_assets.defs.events import failure_events, result_events
from mozagg2bq_assets.defs.keys import stage_key
from mozagg2bq_assets.defs.partitions import partition_key
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource, SparkResource, WarehouseResource
from mozagg2bq_assets.defs.specs import check_specs, stage_specs
from mozagg2bq_assets.errors import OperatorError, machine_errors
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import Converter, DuckDBConverter, Engine
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import RunSettings

BACKFILL_ID_TAG = "dagster/backfill"
PROGRESS_SECONDS = 5.0


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
    ) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
        selected = [stage for stage in Stage if stage_key(aggregate_type, stage) in context.selected_asset_keys]
        partitions = [Partition(aggregate_type, date.fromisoformat(key)) for key in context.partition_keys]
        failures: dict[Partition, OperatorError] = {}
        with _one_line_failure(), scratch_folder() as folder, ExitStack() as stack:
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
                stack.enter_context(bigquery.warehouse()) if Stage.BIGQUERY_TABLE in selected else None,
                settings.outage_patience_seconds,
                settings.dump_jobs,
                settings.days_in_flight,
                config.accept_shrink,
                timedelta(hours=settings.source_grace_hours),
            )
            attempt, log = context.op_execution_context.retry_number, _progress_log(context)
            for result in ingest(partitions, selected, services, folder, attempt, log):
                if result.error is None:
                    yield from result_events(result)
                else:
                    context.log.error(str(result))
                    failures[result.partition] = result.error
                    yield from failure_events(result)
        if failures:
            raise _failure(aggregate_type, failures, len(partitions))

    return stages


def _converter(engine: Engine, spark: SparkResource, writer: LakeWriter, folder: Path) -> Converter:
    """The engine's converter. Raises UserError before anything is dumped, which may take hours."""
    match engine:
        case Engine.duckdb:
            return DuckDBConverter(folder / Stage.PARQUET)
        case Engine.spark:
            return spark.converter(writer.lake, writer.run.run_id)


def _failure(aggregate_type: AggregateType, failures: Mapping[Partition, OperatorError], days: int) -> Failure:
    listed = "; ".join(f"{partition_key(partition)}: {error}" for partition, error in sorted(failures.items()))
    return Failure(f"{len(failures)} of {days} days of {aggregate_type} failed: {listed}")


@contextmanager
def _one_line_failure() -> Iterator[None]:
    """What stops all days at once, as a failure of one line."""
    try:
        with machine_errors():
            yield
    except OperatorError as error:
        raise Failure(str(error)) from None


def _run(context: AssetExecutionContext) -> Run:
    return Run(context.run.run_id, context.run.root_run_id or context.run.run_id, context.run.tags.get(BACKFILL_ID_TAG))


def _is_running(instance: DagsterInstance, run_id: str) -> bool | None:
    run = instance.get_run_by_id(run_id)
    return None if run is None else not run.is_finished


def _progress_log(context: AssetExecutionContext) -> Callable[[str], None]:
    """Log all messages but pg_dump's; of those, only that a table has begun, and at most one every few seconds."""
    begun, logged = 0, time.monotonic()

    def log(message: str) -> None:
        nonlocal begun, logged
        if not message.startswith("pg_dump: "):
            context.log.warning(message)
        elif message.startswith("pg_dump: dumping contents of table"):
            begun += 1
            if begun == 1 or time.monotonic() - logged > PROGRESS_SECONDS:
                context.log.info(f"{message} (number {begun})")
                logged = time.monotonic()

    return log
