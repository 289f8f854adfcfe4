"""Limit how many parts of a run are on local disk as dumps: one that is being dumped, and one that is converted."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Condition, Event

from mozagg2bq_assets.errors import Cancelled
from mozagg2bq_assets.model.partitions import Partition

PARTS = 2
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class PartsOnDisk:
    """The partitions of each part whose files are there, or are about to be. Waiting ends when `cancelled` is set."""

    cancelled: Event
    _parts: list[set[Partition]] = field(default_factory=list)
    _changed: Condition = field(default_factory=Condition)

    def enter(self, part: Iterable[Partition]) -> None:
        """Wait until there is room for another part. Raises Cancelled."""
        with self._changed:
            while len(self._parts) >= PARTS:
                if self.cancelled.is_set():
                    raise Cancelled
                self._changed.wait(LOOK_SECONDS)
            self._parts.append(set(part))

    def leave(self, partition: Partition) -> None:
        """Take note that a partition's dump is gone; safe to repeat."""
        with self._changed:
            for part in self._parts:
                part.discard(partition)
            self._parts[:] = filter(None, self._parts)
            self._changed.notify_all()
