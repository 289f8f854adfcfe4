"""The two aggregate types and their source tables in PostgreSQL."""

import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from mozagg2bq_assets.errors import UserError


class AggregateType(StrEnum):
    """What a table's date means: the day clients reported on, or the day their build was made."""

    SUBMISSION_DATE = "submission_date"
    BUILD_ID = "build_id"

    @classmethod
    def parse(cls, text: str) -> "AggregateType":
        """The type a user wrote: also the predecessor's `submission`, and `build` beside it. Raises UserError."""
        try:
            return cls({"submission": "submission_date", "build": "build_id"}.get(text, text))
        except ValueError:
            raise UserError(f"unknown aggregate type {text!r}: use submission_date or build_id") from None


# Read from both ends, since a channel may hold an underscore. Only a build id has a time behind its date. Capital
# letters, blanks and what does not print never occur: the aggregator creates its tables unquoted.
_TABLE_NAME = re.compile(
    r"(?:(submission_date)_(\S+)_([^\s_]+)_(\d{8})|(build_id)_(\S+)_([^\s_]+)_(\d{8})\d*)", re.ASCII
)


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
        if not match or name != name.lower() or not name.isprintable():
            return None
        aggregate_type, channel, version, digits = (group for group in match.groups() if group is not None)
        try:
            day = datetime.strptime(digits, "%Y%m%d").date()
        except ValueError:
            return None
        return cls(name, AggregateType(aggregate_type), channel, version, day)
