"""Daily partitions, of both types the same, in UTC: ranges of them, and which are under way."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta

from dagster import AssetPartitionStatus, DagsterInstance, DailyPartitionsDefinition

from mozagg2bq_assets.defs.keys import stage_key
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.tags import RANGE_END, RANGE_START


def daily_partitions(start: date) -> DailyPartitionsDefinition:
    """A partition for each day from `start` to yesterday."""
    return DailyPartitionsDefinition(start_date=start.isoformat(), timezone="UTC")


def partition_key(partition: Partition) -> str:
    """A partition as Dagster names it: by its day, since each type has assets of its own."""
    return partition.day.isoformat()


def shortened(keys: Sequence[str]) -> str:
    """The keys of some days in a few words."""
    if len(keys) <= 2:
        return ", ".join(keys)
    return f"{len(keys)} days, {keys[0]} to {keys[-1]}"


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
    return {RANGE_START: days.start.isoformat(), RANGE_END: last.isoformat()}


def days_under_way(
    instance: DagsterInstance, aggregate_type: AggregateType, daily: DailyPartitionsDefinition, days: Iterable[date]
) -> set[date]:
    """Those of the days that a run is taking, or is going to take."""
    keys = [day.isoformat() for day in days]
    statuses = instance.get_status_by_partition(stage_key(aggregate_type, Stage.BIGQUERY_TABLE), keys, daily) or {}
    return {date.fromisoformat(key) for key, status in statuses.items() if status is AssetPartitionStatus.IN_PROGRESS}
