"""Daily partitions: of both types the same, in UTC."""

from collections.abc import Iterable
from datetime import date, timedelta

from dagster import DailyPartitionsDefinition

from mozagg2bq_assets.model.partitions import DayRange, Partition


def daily_partitions(start: date) -> DailyPartitionsDefinition:
    """A partition for each day from `start` to yesterday."""
    return DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC")


def partition_key(partition: Partition) -> str:
    """A partition as Dagster names it: by its day, since each type has assets of its own."""
    return partition.day.isoformat()


def stretches(days: Iterable[date]) -> list[DayRange]:
    """The days as ranges of consecutive ones."""
    ranges: list[DayRange] = []
    for day in sorted(days):
        if ranges and ranges[-1].end == day:
            ranges[-1] = DayRange(ranges[-1].start, day + timedelta(days=1))
        else:
            ranges.append(DayRange(day, day + timedelta(days=1)))
    return ranges


def range_tags(days: DayRange) -> dict[str, str]:
    """Tags of one run of all those days."""
    last = days.end - timedelta(days=1)
    return {
        "dagster/asset_partition_range_start": days.start.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
