"""A schedule for each type: yesterday's partition, every day (UTC). Off until somebody turns it on."""

from dagster import DefaultScheduleStatus, build_schedule_from_partitioned_job

from mozagg2bq_assets.jobs import JOBS

# The aggregator writes a day's tables in the hours after it ends.
HOUR_UTC = 6

SCHEDULES = [
    build_schedule_from_partitioned_job(job, hour_of_day=HOUR_UTC, default_status=DefaultScheduleStatus.STOPPED)
    for job in JOBS.values()
]
