"""Results of stages as Dagster's events, with the metadata that its pages show."""

from collections.abc import Iterator, Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetKey,
    AssetMaterialization,
    AssetRecordsFilter,
    DagsterInstance,
    MetadataValue,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

# Dagster shows a check's verdict on a partition only where it names the materialization that it judges, and exports
# everything for that but this class.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (  # noqa: TID251
    AssetCheckEvaluationTargetMaterializationData,
)

from mozagg2bq_assets.defs.keys import ROW_COUNT, stage_key
from mozagg2bq_assets.defs.partitions import partition_key
from mozagg2bq_assets.defs.specs import COLUMN_SCHEMA
from mozagg2bq_assets.errors import CountMismatch, HeldBack
from mozagg2bq_assets.lake.manifest import DamagedVersion
from mozagg2bq_assets.model.counts import Counts
from mozagg2bq_assets.model.partitions import Partition, Stage, remedy
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.model.tags import ROWS_LABEL
from mozagg2bq_assets.pipeline.reconcile import DayReport
from mozagg2bq_assets.pipeline.result import StageResult

COUNTED_AGAINST = {
    Stage.RAW_DUMP: "table by table as in the source's snapshot",
    Stage.PARQUET: "by channel and version as in the dump",
    Stage.BIGQUERY_TABLE: "by channel and version as in the Parquet file",
}


def result_events(
    result: StageResult, instance: DagsterInstance
) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
    """A stage that did not fail, with rows or without: it is materialized, and its check has passed or warns."""
    key, partition = stage_key(result.partition.aggregate_type, result.stage), partition_key(result.partition)
    said = f"WARNING: {result.warning}" if result.warning else str(result)
    yield AssetMaterialization(key, partition=partition, metadata=_metadata(result), description=said)
    yield _evaluation(
        result.partition,
        result.stage,
        instance,
        passed=result.warning is None,
        severity=AssetCheckSeverity.WARN,
        description=result.warning or f"{result.rows.total:,} rows, {COUNTED_AGAINST[result.stage]}",
        metadata={"rows": result.rows.total},
    )


def failure_events(result: StageResult, instance: DagsterInstance) -> Iterator[AssetCheckEvaluation]:
    """A stage of a partition that failed: its check says why, and which counts differ.

    Where another stage's version is damaged, the check of that stage says so too.
    """
    error, partition = result.error, result.partition
    differing = error.rows if isinstance(error, CountMismatch) else ()
    records = [{"name": name, "expected": expected, "found": found} for name, expected, found in differing]
    metadata = {"differences": _table(records)} if records else {}
    stages, said = {result.stage}, f"{error}; when that is mended, {remedy(partition, result.stage)}"
    if isinstance(error, DamagedVersion | HeldBack):
        said = str(error)  # which says what to do
    if isinstance(error, DamagedVersion):
        stages.add(error.stage)
    for stage in sorted(stages, key=list(Stage).index):
        yield _evaluation(partition, stage, instance, passed=False, description=said, metadata=metadata)


def recount_events(
    report: DayReport, partition: Partition, stage: Stage, instance: DagsterInstance
) -> Iterator[AssetCheckEvaluation]:
    """The check of a stage as lake and BigQuery are now; none for a day that has nothing there."""
    found = [difference for difference in report.differences if difference.stage is stage]
    rows = {
        Stage.RAW_DUMP: report.dump_rows,
        Stage.PARQUET: report.parquet_rows,
        Stage.BIGQUERY_TABLE: report.bigquery_rows,
    }[stage]
    if rows or found:
        said = "; ".join(map(str, found))
        yield _evaluation(
            partition,
            stage,
            instance,
            passed=not found,
            description=f"{said}: {remedy(partition, stage)}" if found else f"compared again: {rows:,} rows",
        )


def _evaluation(partition: Partition, stage: Stage, instance: DagsterInstance, **verdict: Any) -> AssetCheckEvaluation:
    key = stage_key(partition.aggregate_type, stage)
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=ROW_COUNT,
        partition=partition_key(partition),
        target_materialization_data=_latest(instance, key, partition_key(partition)),
        **verdict,
    )


def _latest(instance: DagsterInstance, key: AssetKey, partition: str) -> Any:
    """What Dagster has to know of a partition's latest materialization, to show a check beside it."""
    records = instance.fetch_materializations(AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    return next(
        (
            AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
            for record in records
        ),
        None,
    )


def _metadata(result: StageResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        # First, as the page of a partition begins with its metadata, and has no description.
        **({"warning": result.warning} if result.warning else {}),
        ROWS_LABEL: result.rows.total,
        "MB": result.megabytes,
        "seconds": round(result.seconds, 3),
    }
    if result.stage is Stage.RAW_DUMP:
        metadata["tables"] = len(result.rows)
    if result.rows:
        metadata["rows"] = _table([_row(result.stage, name, rows) for name, rows in _largest_first(result.rows)])
    if result.stage is not Stage.RAW_DUMP:
        metadata["dagster/column_schema"] = COLUMN_SCHEMA
    if result.preview:
        metadata["preview"] = _table([{name: str(value) for name, value in row.items()} for row in result.preview])
    if result.location:
        metadata["partition" if result.stage is Stage.BIGQUERY_TABLE else "dagster/uri"] = result.location
    if result.details:
        metadata["details"] = MetadataValue.json(dict(result.details))
    return metadata


def _largest_first(rows: Counts) -> list[tuple[str, int]]:
    return sorted(rows.items(), key=lambda item: -item[1])


def _row(stage: Stage, name: str, rows: int) -> dict[str, Any]:
    """A line of the table of rows: `name` is a source table's, or a `channel version`."""
    table = SourceTable.parse(name) if stage is Stage.RAW_DUMP else None
    if table:
        return {"channel": table.channel, "version": table.version, "rows": rows, "table": name}
    channel, _, version = name.rpartition(" ")
    return {"channel": channel, "version": version, "rows": rows}


def _table(records: Sequence[dict[str, Any]]) -> TableMetadataValue:
    schema = TableSchema(
        [TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in records[0].items()]
    )
    return MetadataValue.table([TableRecord(record) for record in records], schema)
