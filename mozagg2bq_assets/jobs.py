"""A job for each type: its three stages."""

from dagster import AssetSelection, define_asset_job
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mozagg2bq_assets.assets import STAGES, stage_key
from mozagg2bq_assets.schema import AggregateType


def daily_job(aggregate_type: AggregateType) -> UnresolvedAssetJobDefinition:
    """From source to BigQuery, for whichever days it is asked for."""
    return define_asset_job(
        f"{aggregate_type}_job",
        AssetSelection.assets(*(stage_key(aggregate_type, stage) for stage in STAGES)),
        description=f"A day of {aggregate_type}, from PostgreSQL to BigQuery",
    )


JOBS = {aggregate_type: daily_job(aggregate_type) for aggregate_type in AggregateType}
