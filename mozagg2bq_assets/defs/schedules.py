"""A job for each type, of its three stages; one for the checks over all days, one for views. Their schedules, in UTC.

Schedules are off until somebody turns them on.
"""

from collections.abc import Iterator
from datetime import date, timedelta

from dagster import (
    AssetCheckKey,
    AssetSelection,
    DailyPartitionsDefinition,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    define_asset_job,
    schedule,
)

from mozagg2bq_assets.defs.keys import RECONCILIATION, histograms_key, job_name, source_key, stage_key
from mozagg2bq_assets.defs.partitions import days_under_way, range_tags, stretches
from mozagg2bq_assets.defs.resources import LakeResource
from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.lake.manifest import LoadManifest
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import RunSettings

# The aggregator writes a day's tables in the hours after it ends.
DAILY = "0 6 * * *"
NOON = "0 12 * * *"

JOBS = [
    define_asset_job(
        job_name(aggregate_type),
        AssetSelection.assets(*(stage_key(aggregate_type, stage) for stage in Stage)),
        description=f"A day of {aggregate_type}, from PostgreSQL to BigQuery",
    )
    for aggregate_type in AggregateType
]
RECONCILIATION_JOB = define_asset_job(
    f"{RECONCILIATION}_job",
    AssetSelection.checks(*(AssetCheckKey(source_key(each), RECONCILIATION) for each in AggregateType)),
    description="Source, lake and BigQuery against each other, over all days",
)

HISTOGRAMS_JOB = define_asset_job(
    "histograms_job",
    AssetSelection.assets(*(histograms_key(each) for each in AggregateType)),
    description="The views of histograms, made anew, and a check of the last days' rows",
)


def schedules(daily: DailyPartitionsDefinition, settings: RunSettings) -> list[ScheduleDefinition]:
    """One for each type, one for the reconciliation, and one for the views."""
    at_noon = [
        ScheduleDefinition(job=job, cron_schedule=NOON, default_status=DefaultScheduleStatus.STOPPED)
        for job in (RECONCILIATION_JOB, HISTOGRAMS_JOB)
    ]
    return [*(_daily_schedule(each, daily, settings) for each in AggregateType), *at_noon]


def _daily_schedule(
    aggregate_type: AggregateType, daily: DailyPartitionsDefinition, settings: RunSettings
) -> ScheduleDefinition:
    @schedule(
        name=f"{job_name(aggregate_type)}_schedule",
        job_name=job_name(aggregate_type),
        cron_schedule=DAILY,
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"Of the {settings.ingest_lag_days} days up to yesterday, those that are not loaded yet",
    )
    def every_day(context: ScheduleEvaluationContext, lake: LakeResource) -> Iterator[RunRequest]:
        """One run for each stretch of consecutive days: mostly one."""
        today = context.scheduled_execution_time.date()
        recent = DayRange(max(today - timedelta(days=settings.ingest_lag_days), settings.partitions_start), today)
        wanted = _without_data(aggregate_type, lake, recent)
        under_way = days_under_way(context.instance, aggregate_type, daily, wanted)
        for days in stretches(set(wanted) - under_way):
            yield RunRequest(run_key=f"{aggregate_type} {days.start} {days.end} {today}", tags=range_tags(days))

    return every_day


def _without_data(aggregate_type: AggregateType, lake: LakeResource, days: DayRange) -> list[date]:
    """Days with nothing loaded. If the lake cannot be read, only yesterday.

    That is if S3 is away or refuses, or if a manifest of these days is damaged. If S3 is away, yesterday's run waits
    for it (OUTAGE_PATIENCE_SECONDS). A later tick that can read all manifests takes the other days.
    """
    try:
        loaded = lake.lake()
        return [day for day in days if loaded.read(LoadManifest, Partition(aggregate_type, day)) is None]
    except OperatorError:
        return list(days)[-1:]
