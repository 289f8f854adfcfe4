"""What is moved: the two aggregate types, their source tables, and the 13 columns of the BigQuery table.

The columns are written down once, in `COLUMNS`; every other schema in the project is derived from them.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple

from mozagg2bq_assets.errors import UserError


class AggregateType(StrEnum):
    """What a table's date means: the day clients reported on, or the day their build was made."""

    SUBMISSION_DATE = "submission_date"
    BUILD_ID = "build_id"

    @classmethod
    def parse(cls, text: str) -> "AggregateType":
        """The type a user wrote; the predecessor's `submission` is accepted too. Raises UserError."""
        try:
            return cls({"submission": "submission_date"}.get(text, text))
        except ValueError:
            raise UserError(f"unknown aggregate type {text!r}: use submission_date or build_id") from None


class Column(NamedTuple):
    """A column of the Parquet file and of the BigQuery table."""

    name: str
    bigquery_type: str
    mode: str
    description: str


DIMENSIONS = ("os", "child", "label", "metric", "osVersion", "application", "architecture")

COLUMNS = (
    Column("ingest_date", "DATE", "REQUIRED", "UTC day the dump was taken"),
    Column("aggregate_type", "STRING", "NULLABLE", "submission_date or build_id"),
    Column("ds_nodash", "STRING", "NULLABLE", "date of the aggregate, YYYYMMDD"),
    Column("channel", "STRING", "NULLABLE", "release channel, from the source table's name"),
    Column("version", "STRING", "NULLABLE", "Firefox's major version, from the source table's name"),
    *(Column(name, "STRING", "NULLABLE", f"dimensions->>'{name}' in PostgreSQL") for name in DIMENSIONS),
    Column("aggregate", "STRING", "NULLABLE", "histogram as a JSON array: the bucket counts, then sum and count"),
)

CLUSTERING = {
    AggregateType.SUBMISSION_DATE: ("ds_nodash", "version", "metric", "channel"),
    AggregateType.BUILD_ID: ("metric", "channel", "os", "version"),
}

# Read from both ends, since a channel may hold an underscore. Only a build id has a time behind its date. Capital
# letters never occur: the aggregator creates its tables unquoted.
_TABLE_NAME = re.compile(r"(?:(submission_date)_(.+)_([^_]+)_(\d{8})|(build_id)_(.+)_([^_]+)_(\d{8})\d*)")


@dataclass(frozen=True, order=True)
class SourceTable:
    """A source table and what its name says."""

    name: str
    aggregate_type: AggregateType
    channel: str
    version: str
    day: date

    @classmethod
    def parse(cls, name: str) -> "SourceTable | None":
        """The table of that name, or None where the name is not an aggregate table's."""
        match = _TABLE_NAME.fullmatch(name)
        if not match or name != name.lower():
            return None
        aggregate_type, channel, version, ds_nodash = (group for group in match.groups() if group is not None)
        try:
            day = datetime.strptime(ds_nodash, "%Y%m%d").date()
        except ValueError:
            return None
        return cls(name, AggregateType(aggregate_type), channel, version, day)


def rows_by_channel(rows: Mapping[str, int]) -> Counter[str]:
    """Rows by table, as rows by `channel version`, which build ids with a time share. ValueError on other names."""
    by_channel: Counter[str] = Counter()
    for name, count in rows.items():
        table = SourceTable.parse(name)
        if table is None:
            raise ValueError(f"not an aggregate table: {name}")
        by_channel[f"{table.channel} {table.version}"] += count
    return by_channel


def parse_day(text: str) -> date:
    """A day written `2019-12-01` or `20191201`. Raises UserError."""
    for pattern, form in ((r"\d{4}-\d\d-\d\d", "%Y-%m-%d"), (r"\d{8}", "%Y%m%d")):
        if re.fullmatch(pattern, text, re.ASCII):
            try:
                return datetime.strptime(text, form).date()
            except ValueError:
                break
    raise UserError(f"not a date: {text!r}; write it as 2019-12-01 or 20191201")


def ds_nodash(day: date) -> str:
    """The day as table names, folders and partition decorators write it: `20191201`."""
    return f"{day:%Y%m%d}"
