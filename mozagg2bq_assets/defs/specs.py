"""Specs of the assets and of the row counts: what each depends on, its partitions, and what Dagster shows of it."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from dagster import (
    AssetCheckSpec,
    AssetKey,
    AssetSpec,
    DailyPartitionsDefinition,
    MetadataValue,
    PreviewWarning,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
)

from mozagg2bq_assets.defs.keys import ROW_COUNT, histograms_key, source_key, stage_key
from mozagg2bq_assets.model.columns import COLUMNS, VIEW_COLUMNS, Column
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings

OWNERS = ["team:telemetry"]
CONSOLE = "https://console.cloud.google.com/bigquery"


def _schema(columns: Iterable[Column]) -> TableSchema:
    return TableSchema(
        [
            TableColumn(
                column.name,
                column.bigquery_type if column.mode != "REPEATED" else f"ARRAY<{column.bigquery_type}>",
                column.description,
                TableColumnConstraints(nullable=column.mode != "REQUIRED"),
            )
            for column in columns
        ]
    )


COLUMN_SCHEMA, VIEW_SCHEMA = _schema(COLUMNS), _schema(VIEW_COLUMNS)


class Shown(NamedTuple):
    """What is shown of a stage."""

    description: str
    kinds: set[str]
    metadata: dict[str, Any]


WHEN_RED = "When a day is red: its check `row_count` says why, and what to do."
SHOWN = {
    Stage.RAW_DUMP: Shown(
        "The day's source tables as a pg_dump archive in the lake, taken in one snapshot and counted there. Made each"
        f" morning, and again when the source has changed. {WHEN_RED}",
        {"s3"},
        {},
    ),
    Stage.PARQUET: Shown(
        f"The rows of the day's dump as one Parquet file in the lake. Made after each dump. {WHEN_RED}",
        {"s3", "parquet"},
        {"dagster/column_schema": COLUMN_SCHEMA},
    ),
    Stage.BIGQUERY_TABLE: Shown(
        "The rows of the day's Parquet file as one partition of the BigQuery table, replaced as a whole. Made after"
        f" each Parquet file. {WHEN_RED}",
        {"bigquery"},
        {"dagster/column_schema": COLUMN_SCHEMA},
    ),
}


def source_tables(aggregate_type: AggregateType) -> AssetSpec:
    """The tables in PostgreSQL, which somebody else writes."""
    return AssetSpec(
        source_key(aggregate_type),
        description=f"The PostgreSQL tables {aggregate_type}_CHANNEL_VERSION_YYYYMMDD. The telemetry aggregator writes"
        " them: a day's tables come in the hours after it, and those of build dates grow for weeks. When `up_to_date`"
        " warns: turn the sensor for late data on. When `reconciliation` is red: materialize what it names.",
        group_name=aggregate_type.value,
        kinds={"postgres"},
        owners=OWNERS,
        tags=_tags(aggregate_type),
    )


def stage_specs(aggregate_type: AggregateType, daily: DailyPartitionsDefinition) -> list[AssetSpec]:
    """The stages of a type, each made from the one before it."""
    keys = [stage_key(aggregate_type, stage) for stage in Stage]
    upstreams: list[AssetKey] = [source_key(aggregate_type), *keys[:-1]]
    return [
        AssetSpec(
            key,
            deps=[upstream],
            description=SHOWN[stage].description,
            metadata={**SHOWN[stage].metadata, **_place(aggregate_type, stage)},
            group_name=aggregate_type.value,
            kinds=SHOWN[stage].kinds,
            owners=OWNERS,
            tags=_tags(aggregate_type),
            skippable=True,
            partitions_def=daily,
        )
        for stage, key, upstream in zip(Stage, keys, upstreams, strict=True)
    ]


def _place(aggregate_type: AggregateType, stage: Stage) -> dict[str, Any]:
    """Where a stage's data are, by Dagster's own names for that; nothing where that is not set."""
    if stage is Stage.BIGQUERY_TABLE:
        return _table_name(f"{aggregate_type}_aggregates")
    lake = LakeSettings.texts()
    return {"dagster/uri": f"{lake['uri']}/{stage}/{aggregate_type}/"} if "uri" in lake else {}


def _table_name(name: str) -> dict[str, Any]:
    """A table or a view of the dataset, under Dagster's own name for that."""
    bigquery = BigQuerySettings.texts()
    if not {"project", "dataset"} <= bigquery.keys():
        return {}
    project, dataset = bigquery["project"], bigquery["dataset"]
    place: dict[str, Any] = {"dagster/table_name": f"{project}.{dataset}.{name}"}
    # The console knows nothing of an emulator.
    if "emulator_host" not in bigquery:
        place["console"] = MetadataValue.url(f"{CONSOLE}?p={project}&d={dataset}&t={name}&page=table")
    return place


def view_spec(aggregate_type: AggregateType) -> AssetSpec:
    """The view of a type's histograms."""
    return AssetSpec(
        histograms_key(aggregate_type),
        deps=[stage_key(aggregate_type, Stage.BIGQUERY_TABLE)],
        description="A view of the BigQuery table, with each histogram's buckets, sum and count as numbers. Materialize"
        " it once, and after an upgrade",
        metadata={"dagster/column_schema": VIEW_SCHEMA, **_table_name(f"{aggregate_type}_histograms")},
        group_name=aggregate_type.value,
        kinds={"bigquery", "view"},
        owners=OWNERS,
        tags=_tags(aggregate_type),
    )


def _tags(aggregate_type: AggregateType) -> dict[str, str]:
    return {"aggregate_type": aggregate_type.value}


def check_specs(aggregate_type: AggregateType, daily: DailyPartitionsDefinition) -> list[AssetCheckSpec]:
    """The count of rows, on each stage of a type."""
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster 1.13; dagster is pinned to that series.
        warnings.simplefilter("ignore", PreviewWarning)
        return [
            AssetCheckSpec(
                ROW_COUNT,
                asset=stage_key(aggregate_type, stage),
                description="Every row of the stage before is there, by table or by channel and version. Evaluated for"
                " each day as it is committed; yellow says what is unusual, red what to do. Executed by itself, it"
                " compares for all days the manifests, the files in the lake and the rows in BigQuery",
                partitions_def=daily,
            )
            for stage in Stage
        ]
