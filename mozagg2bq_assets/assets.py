"""The assets: for each aggregate type the external source tables, and the three stages that are made from them."""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    Config,
    DagsterInstance,
    Failure,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableMetadataValue,
    TableRecord,
    TableSchema,
    multi_asset,
)
from dagster_shared.utils.warnings import PreviewWarning
from pydantic import Field

from mozagg2bq_assets import environment
from mozagg2bq_assets.batch import convert_on_spark, passing
from mozagg2bq_assets.errors import CountMismatch, DataError, UserError
from mozagg2bq_assets.lake.manifest import Run, Stage
from mozagg2bq_assets.partitions import DAILY, partition_key
from mozagg2bq_assets.pgdump.dump import DumpResult, dump_days
from mozagg2bq_assets.resources.bigquery import WarehouseResource
from mozagg2bq_assets.resources.lake import LakeResource
from mozagg2bq_assets.resources.postgres import PostgresResource
from mozagg2bq_assets.resources.spark import SparkResource
from mozagg2bq_assets.schema import COLUMNS, AggregateType
from mozagg2bq_assets.stages import Day, Outcome
from mozagg2bq_assets.workspace import workspace

if TYPE_CHECKING:
    from mozagg2bq_assets.transform.spark import Converted

STAGES = tuple(Stage)
RAW_DUMP, PARQUET, BIGQUERY_TABLE = STAGES
ROW_COUNT = "row_count"
POOL = "source"
BACKFILL_ID_TAG = "dagster/backfill"
PROGRESS_SECONDS = 5.0


class StagesConfig(Config):
    """Run configuration of a type's stages."""

    engine: str | None = Field(default=None, description="duckdb or spark; by default what TRANSFORM_ENGINE says.")


COLUMN_SCHEMA = TableSchema(
    [
        TableColumn(
            column.name,
            column.bigquery_type,
            column.description,
            TableColumnConstraints(nullable=column.mode == "NULLABLE"),
        )
        for column in COLUMNS
    ]
)


def source_key(aggregate_type: AggregateType) -> AssetKey:
    """The external asset that stands for a type's source tables."""
    return AssetKey([aggregate_type.value, "source_tables"])


def stage_key(aggregate_type: AggregateType, stage: Stage) -> AssetKey:
    """The asset of a stage."""
    return AssetKey([aggregate_type.value, stage.value])


def source_tables(aggregate_type: AggregateType) -> AssetSpec:
    """The tables in PostgreSQL, which somebody else writes."""
    return AssetSpec(
        source_key(aggregate_type),
        description=f"PostgreSQL tables {aggregate_type}_CHANNEL_VERSION_YYYYMMDD, written by the telemetry aggregator",
        group_name=aggregate_type.value,
        kinds={"postgres"},
    )


def _specs(aggregate_type: AggregateType) -> list[AssetSpec]:
    columns = {"dagster/column_schema": COLUMN_SCHEMA}
    source, dump, parquet = source_key(aggregate_type), *(stage_key(aggregate_type, stage) for stage in STAGES[:-1])
    chain: tuple[tuple[Stage, AssetKey, str, set[str], dict[str, Any]], ...] = (
        (RAW_DUMP, source, "pg_dump archive of the day's tables, in the lake", {"s3"}, {}),
        (PARQUET, dump, "The day's rows as one Parquet file, in the lake", {"parquet", "duckdb"}, columns),
        (BIGQUERY_TABLE, parquet, "The day's partition of the BigQuery table", {"bigquery"}, columns),
    )
    return [
        AssetSpec(
            stage_key(aggregate_type, stage),
            deps=[upstream],
            description=description,
            metadata=metadata,
            group_name=aggregate_type.value,
            kinds=kinds,
            skippable=True,
            partitions_def=DAILY,
        )
        for stage, upstream, description, kinds, metadata in chain
    ]


def _check_spec(aggregate_type: AggregateType, stage: Stage) -> AssetCheckSpec:
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster 1.13; dagster is pinned to that series.
        warnings.simplefilter("ignore", PreviewWarning)
        return AssetCheckSpec(
            ROW_COUNT,
            asset=stage_key(aggregate_type, stage),
            description="Every row of the stage before is there, counted by table or by channel and version",
            partitions_def=DAILY,
        )


def daily_stages(aggregate_type: AggregateType) -> AssetsDefinition:
    """The three stages of a type: a generator that yields its days one by one, so that each stands for itself."""

    @multi_asset(
        name=f"{aggregate_type}_stages",
        specs=_specs(aggregate_type),
        check_specs=[_check_spec(aggregate_type, stage) for stage in STAGES],
        can_subset=True,
        backfill_policy=BackfillPolicy.multi_run(environment.partitions_per_run()),
        pool=POOL,
    )
    def stages(
        context: AssetExecutionContext,
        config: StagesConfig,
        postgres: PostgresResource,
        lake: LakeResource,
        bigquery: WarehouseResource,
        spark: SparkResource,
    ) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
        selected = [stage for stage in STAGES if stage_key(aggregate_type, stage) in context.selected_asset_keys]
        days = [date.fromisoformat(key) for key in context.partition_keys]
        failures: dict[date, Exception] = {}
        with workspace() as folder, _one_line_failure(), ExitStack() as resources:
            store = lake.lake()
            warehouse = resources.enter_context(bigquery.warehouse()) if BIGQUERY_TABLE in selected else None
            attempt = context.op_execution_context.retry_number
            is_running = partial(_is_running, context.instance)
            works = [
                Day(aggregate_type, day, _run(context), attempt, store, is_running, folder / f"work-{day}")
                for day in days
            ]
            on_spark = PARQUET in selected and environment.engine(config.engine) == "spark"
            if on_spark:
                spark.check()  # before the dumps, which may take hours
            dumps: Mapping[date, DumpResult] = {}
            if RAW_DUMP in selected and (missing := [work.day for work in works if not work.resumed(Stage.RAW_DUMP)]):
                dumps = dump_days(postgres.source(), aggregate_type, missing, folder, _progress_log(context))
            for group in _before_and_after(selected) if on_spark else [selected]:
                remaining = [work for work in works if work.day not in failures]
                converted: Mapping[date, Converted] = {}
                if on_spark and PARQUET in group:
                    converted = convert_on_spark(spark.session, remaining, context.run.run_id)
                for work, results in resources.enter_context(passing(remaining, group, dumps, warehouse, converted)):
                    for stage, result in results.items():
                        if isinstance(result, Outcome):
                            yield from _events(aggregate_type, stage, work.day, result)
                        else:
                            context.log.error(f"{work}: {result}")
                            failures[work.day] = result
                            yield _failed_check(aggregate_type, stage, work.day, result)
        if failures:
            raise _failure(aggregate_type, failures, len(days))

    return stages


def _before_and_after(selected: Sequence[Stage]) -> list[list[Stage]]:
    """Spark converts all days at once, so all are dumped before, and go on after it."""
    before, after = ([stage for stage in selected if (stage is RAW_DUMP) == first] for first in (True, False))
    return [stages for stages in (before, after) if stages]


def _events(
    aggregate_type: AggregateType, stage: Stage, day: date, outcome: Outcome
) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
    """A committed stage of a day as Dagster's events."""
    key, partition = stage_key(aggregate_type, stage), partition_key(day)
    names = "tables" if stage == RAW_DUMP else "channels_and_versions"
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": outcome.total_rows,
        "rows": outcome.total_rows,
        names: len(outcome.rows),
        "bytes": outcome.size,
        "seconds": round(outcome.seconds, 3),
        "rows_by_name": _table([{"name": name, "rows": rows} for name, rows in outcome.rows.items()]),
        "details": MetadataValue.json(dict(outcome.details)),
    }
    if outcome.location:
        metadata["location"] = outcome.location
    if outcome.preview:
        metadata["preview"] = _table([{name: str(value) for name, value in row.items()} for row in outcome.preview])
    if stage != RAW_DUMP:
        metadata["dagster/column_schema"] = COLUMN_SCHEMA
    if outcome.warning:
        metadata["warning"] = outcome.warning
    yield AssetMaterialization(key, partition=partition, metadata=metadata, description=outcome.warning)
    yield AssetCheckEvaluation(
        asset_key=key,
        check_name=ROW_COUNT,
        partition=partition,
        passed=outcome.warning is None,
        severity=AssetCheckSeverity.WARN,
        description=outcome.warning or f"{outcome.total_rows:,} rows, as in the stage before",
        metadata={"rows": outcome.total_rows, names: len(outcome.rows)},
    )


def _failed_check(aggregate_type: AggregateType, stage: Stage, day: date, error: Exception) -> AssetCheckEvaluation:
    differing = error.rows if isinstance(error, CountMismatch) else ()
    records = [{"name": name, "expected": expected, "found": found} for name, expected, found in differing]
    return AssetCheckEvaluation(
        asset_key=stage_key(aggregate_type, stage),
        check_name=ROW_COUNT,
        partition=partition_key(day),
        passed=False,
        severity=AssetCheckSeverity.ERROR,
        description=str(error),
        metadata={"differences": _table(records)} if records else {},
    )


def _table(records: list[dict[str, Any]]) -> TableMetadataValue:
    columns = records[0] if records else {"name": "", "rows": 0}
    schema = TableSchema(
        [TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in columns.items()]
    )
    return MetadataValue.table([TableRecord(record) for record in records], schema)


def _failure(aggregate_type: AggregateType, failures: Mapping[date, Exception], days: int) -> Failure:
    listed = "; ".join(f"{partition_key(day)}: {error}" for day, error in failures.items())
    return Failure(f"{len(failures)} of {days} days of {aggregate_type} failed: {listed}")


@contextmanager
def _one_line_failure() -> Iterator[None]:
    """What stops all days at once, as a failure of one line."""
    try:
        yield
    except (UserError, DataError) as error:
        raise Failure(str(error)) from None


def _run(context: AssetExecutionContext) -> Run:
    return Run(context.run.run_id, context.run.root_run_id or context.run.run_id, context.run.tags.get(BACKFILL_ID_TAG))


def _is_running(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def _progress_log(context: AssetExecutionContext) -> Callable[[str], None]:
    """pg_dump's messages for the log: the tables it has begun, not more often than every few seconds."""
    begun, logged = 0, time.monotonic()

    def log(message: str) -> None:
        nonlocal begun, logged
        if message.startswith("dumping contents of table"):
            begun += 1
            if begun == 1 or time.monotonic() - logged > PROGRESS_SECONDS:
                context.log.info(f"pg_dump: {message} (number {begun})")
                logged = time.monotonic()

    return log
