"""Counts of rows, by source table and by channel and version: two types, so that neither passes for the other."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from mozagg2bq_assets.errors import CountMismatch, one_line
from mozagg2bq_assets.model.columns import EXPECTED_KEYS
from mozagg2bq_assets.model.tables import SourceTable

EXAMPLE_CHARACTERS = 200
# Limits for keys without a column: how many a manifest lists, how many a message lists, and how many characters of each
# name the message shows.
NAMED_KEYS = 100
SHOWN_KEYS = 5
SHOWN_CHARACTERS = 50


class Counts(dict[str, int]):
    """Rows by name. Not to be changed once it is made."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, __: Any) -> Any:
        """How manifests read it: an object of names and numbers from 0."""
        # Imported here: conversions count too, need no manifests, and should not wait for pydantic's import.
        from pydantic_core import core_schema

        counts = core_schema.dict_schema(core_schema.str_schema(), core_schema.int_schema(ge=0))
        return core_schema.no_info_after_validator_function(cls, counts)

    @property
    def total(self) -> int:
        """Rows of all names."""
        return sum(self.values())


class ChannelCounts(Counts):
    """Rows by `channel version`, as Parquet and BigQuery have them."""


class TableCounts(Counts):
    """Rows by source table, as PostgreSQL and its dump have them."""

    def by_channel(self) -> ChannelCounts:
        """The same rows by `channel version`. Raises ValueError for a name that is not an aggregate table's.

        Several build-id tables with a time may share one `channel version`.
        """
        by_channel: Counter[str] = Counter()
        for name, rows in self.items():
            table = SourceTable.parse(name)
            if table is None:
                raise ValueError(f"not an aggregate table: {name}")
            by_channel[f"{table.channel} {table.version}"] += rows
        return ChannelCounts(by_channel)


SameCounts = TypeVar("SameCounts", TableCounts, ChannelCounts)


def check_counts(where: str, expected: SameCounts, found: SameCounts) -> None:
    """Raise CountMismatch unless both give each name the same rows; a name without rows may be left out."""
    names = sorted(expected.keys() | found.keys())
    rows = [(name, expected.get(name, 0), found.get(name, 0)) for name in names]
    if differing := [row for row in rows if row[1] != row[2]]:
        raise CountMismatch(where, differing)


@dataclass(frozen=True)
class UnmappedKey:
    """A key of `dimensions` that has no column: its rows, and one of its values as PostgreSQL prints it, cut."""

    rows: int
    example: str


class UnmappedKeys(dict[str, UnmappedKey]):
    """The keys of `dimensions` that have no column, by name."""

    def add(self, key: str, example: str, rows: int = 1) -> None:
        """Count occurrences of a key. The first example stays."""
        before = self.get(key, UnmappedKey(0, example[:EXAMPLE_CHARACTERS]))
        self[key] = UnmappedKey(before.rows + rows, before.example)

    def merge(self, other: Mapping[str, UnmappedKey]) -> None:
        """Count another's occurrences too."""
        for key, found in other.items():
            self.add(key, found.example, found.rows)

    def most_frequent(self) -> "UnmappedKeys":
        """Those that occur most often, as many as a manifest names; a key's name may hold anything, of any length."""
        ordered = sorted(self.items(), key=lambda item: (-item[1].rows, item[0]))
        return UnmappedKeys(ordered[:NAMED_KEYS])

    def warning(self, more: int = 0) -> str | None:
        """Those that nobody expects, in a line, and how many more there are; None where there are none.

        `more` counts keys that are not in this dict.
        """
        unexpected = sorted(item for item in self.items() if item[0] not in EXPECTED_KEYS)
        if not unexpected:
            return None
        shown = unexpected[:SHOWN_KEYS]
        keys = [f"{key[:SHOWN_CHARACTERS]!r} in {found.rows} rows, e.g. {found.example}" for key, found in shown]
        if others := len(unexpected) - len(shown) + more:
            keys.append(f"and {others} more")
        return one_line(f"keys of dimensions that have no column: {'; '.join(keys)}")
