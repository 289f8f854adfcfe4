"""What one stage did with one partition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.model.counts import Counts
from mozagg2bq_assets.model.partitions import Partition, Stage


@dataclass(frozen=True)
class StageResult:
    """A stage of a partition: committed, left as it was (no rows, or tables trimmed), or failed with `error`.

    `rows` counts by source table (raw_dump) or by `channel version` (the others). `location` is the URI of a version's
    folder or a BigQuery partition; `size` is in bytes. `warning` tells the operator in a line what is unusual.
    `resumed` is the id of the run that has committed it before, if this run has only found it.
    """

    partition: Partition
    stage: Stage
    rows: Counts = field(default_factory=Counts)
    location: str | None = None
    size: int = 0
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    preview: Sequence[Mapping[str, Any]] = ()
    warning: str | None = None
    resumed: str | None = None
    error: OperatorError | None = None

    @property
    def megabytes(self) -> float:
        """Its size in MB."""
        return round(self.size / 1e6, 3)

    def __str__(self) -> str:
        if self.error:
            said = str(self.error)
        elif self.resumed:
            said = f"{self.rows.total:,} rows, committed already by run {self.resumed}"
        else:
            said = f"{self.rows.total:,} rows, {self.size / 1e6:,.1f} MB, {self.seconds:,.1f} s"
        return f"{self.partition.day} {self.stage}: {said}"
