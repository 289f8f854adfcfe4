"""Runs: who writes, and whose work need not be done again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """Who writes: the run, the first run that it repeats (itself, mostly), and the backfill they belong to, if any."""

    run_id: str
    root_run_id: str
    backfill_id: str | None = None

    def continues(self, other: "Run") -> bool:
        """Whether what the other run committed need not be done again: both repeat one run, or are of one backfill."""
        return self.root_run_id == other.root_run_id or (
            self.backfill_id is not None and self.backfill_id == other.backfill_id
        )
