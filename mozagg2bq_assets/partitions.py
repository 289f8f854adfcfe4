"""Daily partitions: of both types the same, in UTC, from PARTITIONS_START on."""

from datetime import date

from dagster import DailyPartitionsDefinition

from mozagg2bq_assets.environment import partitions_start

DAILY = DailyPartitionsDefinition(start_date=partitions_start().isoformat(), timezone="UTC")


def partition_key(day: date) -> str:
    """The partition of a day."""
    return day.isoformat()
