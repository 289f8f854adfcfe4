"""What the source says of its own updates: how a day looked when it was dumped, to tell whether it has changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceState:
    """A partition in the source at one moment.

    `fingerprint` changes whenever the aggregator merges something into one of its tables or makes a new one; where
    updates are not recorded, only when tables come or go. `tables` has a hash of what has been merged into each table
    that is there ("" where that is not recorded), and `dropped` the same of those that are recorded, but not there any
    more.
    """

    fingerprint: str
    tables: Mapping[str, str] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)

    def changed_since(self, before: "SourceState") -> list[str]:
        """Tables that are there now, and were not before, or have had something merged into them since."""
        return sorted(name for name, merged in self.tables.items() if before.tables.get(name) != merged)

    def trimmed_since(self, before: "SourceState") -> list[str]:
        """Tables that were there, and were dropped while their record stayed, as the job does that trims old tables."""
        return sorted(name for name, merged in before.tables.items() if self.dropped.get(name) == merged)

    def lost_since(self, before: "SourceState") -> list[str]:
        """Tables that were there, and have been dropped in any other way."""
        return sorted(before.tables.keys() - self.tables.keys() - set(self.trimmed_since(before)))
