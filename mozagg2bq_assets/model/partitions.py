"""Partitions: one aggregate type on one day. Ranges of days, and the stages that a partition goes through."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.tables import AggregateType, SourceTable


class Stage(StrEnum):
    """A stage of a partition, in the order of the pipeline."""

    RAW_DUMP = "raw_dump"
    PARQUET = "parquet"
    BIGQUERY_TABLE = "bigquery_table"


@dataclass(frozen=True, order=True)
class Partition:
    """One aggregate type on one day: the unit that is dumped, converted, loaded, checked and replaced."""

    aggregate_type: AggregateType
    day: date

    @classmethod
    def of(cls, table: SourceTable) -> "Partition":
        """The partition that a source table belongs to."""
        return cls(table.aggregate_type, table.day)

    @property
    def ds_nodash(self) -> str:
        """Its day as table names, folders and partition decorators write it: `20191201`."""
        return ds_nodash(self.day)

    @property
    def ends_at(self) -> datetime:
        """The end of its day, in UTC."""
        return datetime.combine(self.day + timedelta(days=1), time(), UTC)

    @property
    def path(self) -> str:
        """Its folder below a root: `build_id/20191201`."""
        return f"{self.aggregate_type}/{self.ds_nodash}"

    def __str__(self) -> str:
        return f"{self.aggregate_type} {self.ds_nodash}"


def remedy(partition: Partition, stage: Stage) -> str:
    """What mends a stage of a partition, and so the stages after it, as the end of a message."""
    return f"materialize {partition.aggregate_type}/{stage} of {partition.day}{then(stage)}"


def then(stage: Stage) -> str:
    """The stages that have to be materialized after that one, as the end of a sentence."""
    later = list(Stage)[list(Stage).index(stage) + 1 :]
    return f", then {' and '.join(later)}" if later else ""


def days_by_type(partitions: Iterable[Partition]) -> dict[AggregateType, list[str]]:
    """Days of the partitions, written `20191201`, by type."""
    days: dict[AggregateType, list[str]] = {}
    for partition in partitions:
        days.setdefault(partition.aggregate_type, []).append(partition.ds_nodash)
    return days


@dataclass(frozen=True)
class DayRange:
    """Consecutive days, `end` exclusive. A range whose end is not after its start is empty."""

    start: date
    end: date

    def __contains__(self, day: date) -> bool:
        return self.start <= day < self.end

    def __iter__(self) -> Iterator[date]:
        return (self.start + timedelta(days=n) for n in range(len(self)))

    def __len__(self) -> int:
        return max((self.end - self.start).days, 0)

    def parts(self, length: int) -> "Iterator[DayRange]":
        """The same days in ranges of that many; the last may be shorter."""
        for n in range(0, len(self), length):
            start = self.start + timedelta(days=n)
            yield DayRange(start, min(start + timedelta(days=length), self.end))


def parse_day(text: str) -> date:
    """A day written `2019-12-01` or `20191201`. Raises UserError."""
    for pattern, form in ((r"\d{4}-\d\d-\d\d", "%Y-%m-%d"), (r"\d{8}", "%Y%m%d")):
        if re.fullmatch(pattern, text, re.ASCII):
            try:
                return datetime.strptime(text, form).date()
            except ValueError:
                break
    raise UserError(f"not a date: {text!r}; write it as 2019-12-01 or 20191201")


def parse_ds_nodash(text: str) -> date | None:
    """The day that a table's name, a folder or a partition decorator writes; None for any other text."""
    try:
        return parse_day(text) if re.fullmatch(r"\d{8}", text, re.ASCII) else None
    except UserError:
        return None


def ds_nodash(day: date) -> str:
    """The day as table names, folders and partition decorators write it: `20191201`."""
    return f"{day:%Y%m%d}"
