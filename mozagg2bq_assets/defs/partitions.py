"""Daily partitions: of both types the same, in UTC."""

from datetime import date

from dagster import DailyPartitionsDefinition

from mozagg2bq_assets.model.partitions import Partition


def daily_partitions(start: date) -> DailyPartitionsDefinition:
    """A partition for each day from `start` to yesterday."""
    return DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC")


def partition_key(partition: Partition) -> str:
    """A partition as Dagster names it: by its day, since each type has assets of its own."""
    return partition.day.isoformat()
