"""Which days are partitions, by the settings."""

from collections.abc import Iterable
from datetime import UTC, date, datetime

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.settings import RunSettings


def check_partitions(days: Iterable[date]) -> None:
    """Raise UserError for a day that is no partition."""
    partitions = all_partitions()
    for day in days:
        if day not in partitions:
            raise UserError(
                f"{day} is outside the partitions, which begin at {partitions.start} and end with yesterday (UTC);"
                " PARTITIONS_START sets the first"
            )


def all_partitions() -> DayRange:
    """The days that are partitions: from PARTITIONS_START to yesterday, in UTC."""
    return DayRange(RunSettings.read().partitions_start, datetime.now(UTC).date())
