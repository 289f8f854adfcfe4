"""Results of stages as Dagster's events, with the metadata that its pages show."""

from collections.abc import Iterator, Sequence
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetMaterialization,
    MetadataValue,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

from mozagg2bq_assets.defs.keys import ROW_COUNT, stage_key
from mozagg2bq_assets.defs.partitions import partition_key
from mozagg2bq_assets.defs.specs import COLUMN_SCHEMA
from mozagg2bq_assets.errors import CountMismatch
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.pipeline.result import StageResult


def result_events(result: StageResult) -> Iterator[AssetMaterialization | AssetCheckEvaluation]:
    """A stage that did not fail, with rows or without: it is materialized, and its check has passed or warns."""
    key = stage_key(result.partition.aggregate_type, result.stage)
    partition, counted = partition_key(result.partition), _counted(result)
    yield AssetMaterialization(key, partition=partition, metadata=_metadata(result), description=result.warning)
    yield AssetCheckEvaluation(
        asset_key=key,
        check_name=ROW_COUNT,
        partition=partition,
        passed=result.warning is None,
        severity=AssetCheckSeverity.WARN,
        description=result.warning or f"{result.rows.total:,} rows, as in the stage before",
        metadata={"rows": result.rows.total, **counted},
    )


def failure_events(result: StageResult) -> Iterator[AssetCheckEvaluation]:
    """A stage of a partition that failed: its check says why, and which counts differ."""
    differing = result.error.rows if isinstance(result.error, CountMismatch) else ()
    records = [{"name": name, "expected": expected, "found": found} for name, expected, found in differing]
    yield AssetCheckEvaluation(
        asset_key=stage_key(result.partition.aggregate_type, result.stage),
        check_name=ROW_COUNT,
        partition=partition_key(result.partition),
        passed=False,
        severity=AssetCheckSeverity.ERROR,
        description=str(result.error),
        metadata={"differences": _table(records)} if records else {},
    )


def _counted(result: StageResult) -> dict[str, int]:
    names = "tables" if result.stage is Stage.RAW_DUMP else "channels_and_versions"
    return {names: len(result.rows)}


def _metadata(result: StageResult) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": result.rows.total,
        "rows": result.rows.total,
        **_counted(result),
        "bytes": result.size,
        "seconds": round(result.seconds, 3),
        "rows_by_name": _table([{"name": name, "rows": rows} for name, rows in result.rows.items()]),
        "details": MetadataValue.json(dict(result.details)),
    }
    if result.location:
        metadata["location"] = result.location
    if result.preview:
        metadata["preview"] = _table([{name: str(value) for name, value in row.items()} for row in result.preview])
    if result.stage is not Stage.RAW_DUMP:
        metadata["dagster/column_schema"] = COLUMN_SCHEMA
    if result.warning:
        metadata["warning"] = result.warning
    return metadata


def _table(records: Sequence[dict[str, Any]]) -> TableMetadataValue:
    columns = records[0] if records else {"name": "", "rows": 0}
    schema = TableSchema(
        [TableColumn(name, "int" if isinstance(value, int) else "string") for name, value in columns.items()]
    )
    return MetadataValue.table([TableRecord(record) for record in records], schema)
