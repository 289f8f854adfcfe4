"""Names under which Dagster knows a type's assets, checks and job."""

from dagster import AssetKey

from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.tables import AggregateType

ROW_COUNT = "row_count"
RECONCILIATION = "reconciliation"
UP_TO_DATE = "up_to_date"
BUCKETS = "buckets"


def source_key(aggregate_type: AggregateType) -> AssetKey:
    """The external asset that stands for a type's source tables."""
    return AssetKey([aggregate_type.value, "source_tables"])


def stage_key(aggregate_type: AggregateType, stage: Stage) -> AssetKey:
    """The asset of a stage."""
    return AssetKey([aggregate_type.value, stage.value])


def histograms_key(aggregate_type: AggregateType) -> AssetKey:
    """The view of a type's histograms."""
    return AssetKey([aggregate_type.value, "histograms"])


def job_name(aggregate_type: AggregateType) -> str:
    """The job of a type's three stages."""
    return f"{aggregate_type}_job"
