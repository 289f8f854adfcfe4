"""Daily partitions: of both types the same, in UTC, from PARTITIONS_START on."""

from dagster import DailyPartitionsDefinition

from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.settings import partitions_start

DAILY = DailyPartitionsDefinition(start_date=partitions_start().isoformat(), timezone="UTC")


def partition_key(partition: Partition) -> str:
    """A partition as Dagster names it: by its day, since each type has assets of its own."""
    return partition.day.isoformat()
