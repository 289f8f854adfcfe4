"""Types, options and checks that several commands share."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import click

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange, parse_day
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import partitions_start

Command = TypeVar("Command", bound=Callable[..., None])


class AggregateTypeOption(click.ParamType[AggregateType]):
    """An aggregate type on the command line."""

    name = "type"

    def convert(self, value: str | AggregateType, *_: object) -> AggregateType:
        """Raises UserError."""
        return AggregateType.parse(value)


class DayOption(click.ParamType[date]):
    """A day on the command line."""

    name = "date"

    def convert(self, value: str | date, *_: object) -> date:
        """Raises UserError."""
        return value if isinstance(value, date) else parse_day(value)


def type_option(required: bool) -> Callable[[Command], Command]:
    """`--aggregate-type`."""
    text = "submission_date or build_id." + ("" if required else " Both, if it is left out.")
    return click.option("--aggregate-type", type=AggregateTypeOption(), required=required, help=text)


def date_option(required: bool) -> Callable[[Command], Command]:
    """`--date`."""
    text = "The day, as 2019-12-01 or 20191201." + ("" if required else " All days, if it is left out.")
    return click.option("--date", "day", type=DayOption(), required=required, help=text)


end_date_option = click.option("--end-date", type=DayOption(), help="The day after the last day; by default one day.")
input_dir_option = click.option(
    "--input-dir", type=click.Path(path_type=Path), required=True, help="The folder to read from."
)
output_dir_option = click.option(
    "--output-dir", type=click.Path(path_type=Path), required=True, help="The folder to write to; made if missing."
)


def types(chosen: AggregateType | None) -> Sequence[AggregateType]:
    """The type that was chosen, or both."""
    return [chosen] if chosen else list(AggregateType)


def day_range(start: date, end: date | None, start_option: str = "--date", end_option: str = "--end-date") -> DayRange:
    """From start to end, or one day where there is no end. Raises UserError where the end is not after the start."""
    if end is not None and end <= start:
        raise UserError(f"{end_option} {end} is not after {start_option} {start}; the end is exclusive")
    return DayRange(start, end or start + timedelta(days=1))


def check_partitions(days: Iterable[date]) -> None:
    """Raise UserError for a day that is no partition."""
    for day in days:
        if day not in all_partitions():
            raise UserError(
                f"{day} is outside the partitions, which begin at {partitions_start()} and end with yesterday (UTC);"
                " PARTITIONS_START sets their begin"
            )


def all_partitions() -> DayRange:
    """The days that are partitions: from PARTITIONS_START to yesterday, in UTC."""
    return DayRange(partitions_start(), datetime.now(UTC).date())
