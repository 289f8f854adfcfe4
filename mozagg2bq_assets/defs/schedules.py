"""A job for each type: its three stages. A schedule for each job: yesterday's partition, every day (UTC).

Schedules are off until somebody turns them on.
"""

from dagster import AssetSelection, DefaultScheduleStatus, build_schedule_from_partitioned_job, define_asset_job

from mozagg2bq_assets.defs.keys import job_name, stage_key
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.tables import AggregateType

# The aggregator writes a day's tables in the hours after it ends.
HOUR_UTC = 6

JOBS = [
    define_asset_job(
        job_name(aggregate_type),
        AssetSelection.assets(*(stage_key(aggregate_type, stage) for stage in Stage)),
        description=f"A day of {aggregate_type}, from PostgreSQL to BigQuery",
    )
    for aggregate_type in AggregateType
]

SCHEDULES = [
    build_schedule_from_partitioned_job(job, hour_of_day=HOUR_UTC, default_status=DefaultScheduleStatus.STOPPED)
    for job in JOBS
]
