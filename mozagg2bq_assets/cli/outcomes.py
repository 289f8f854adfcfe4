"""What became of the partitions of some runs, from the runs' events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from mozagg2bq_assets.cli.graphql import EVENTS, Webserver
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.tags import ONE_PARTITION, RANGE_END, RANGE_START, ROWS_LABEL

ENDED_RUN = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True)
class Outcome:
    """The rows that a partition has in BigQuery, or the reason why it failed."""

    rows: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class RunState:
    """A run as the webserver shows it, and the partitions that it takes."""

    id: str
    status: str
    tags: Mapping[str, str]
    partitions: frozenset[Partition]

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> "RunState":
        """Read a run from an answer. If that has its steps, only their types are taken, else those of its assets."""
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        types = {AggregateType(key["path"][0]) for key in run["assetSelection"] or ()}
        if (steps := run.get("stepKeysToExecute")) is not None:
            types = {each for each in types if any(step.startswith(each) for step in steps)}
        return cls(
            run["id"], run["status"], tags, frozenset(Partition(each, day) for each in types for day in _days(tags))
        )

    @property
    def ended(self) -> bool:
        """Whether it does nothing more."""
        return self.status in ENDED_RUN

    @property
    def days(self) -> list[str]:
        """The days that it has begun with, by type: the stages write them into its tags."""
        return [
            f"{each} {self.tags[each].partition(' days, ')[2] or self.tags[each]}"
            for each in AggregateType
            if each in self.tags
        ]


def _days(tags: Mapping[str, str]) -> DayRange:
    first, last = tags.get(RANGE_START, tags.get(ONE_PARTITION)), tags.get(RANGE_END, tags.get(ONE_PARTITION))
    if first is None or last is None:
        return DayRange(date.min, date.min)
    return DayRange(date.fromisoformat(first), date.fromisoformat(last) + timedelta(days=1))


@dataclass
class RunEvents:
    """What one run has said of its partitions so far."""

    outcomes: dict[Partition, Outcome] = field(default_factory=dict)
    # What ended a type's step, and the run: the reason of partitions that nothing else was said of.
    failures: dict[AggregateType | None, str] = field(default_factory=dict)
    over: bool = False
    _cursor: str | None = None

    def read(self, webserver: Webserver, run: RunState) -> None:
        """Ask for what is new. Of a run that has not begun, or whose end has been read, nothing is asked."""
        if self.over or run.status not in ("STARTED", "CANCELING", *ENDED_RUN):
            return
        more = True
        while more:
            found = webserver.ask(EVENTS, id=run.id, after=self._cursor)["eventConnection"]
            for event in found["events"]:
                self._take(event)
            self._cursor, more = found["cursor"], found["hasMore"]
        self.over = run.ended

    def reason(self, partition: Partition) -> str:
        """Why a partition that the run said nothing of has failed."""
        return self.failures.get(partition.aggregate_type) or self.failures.get(None) or "its run has failed"

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["__typename"]:
            case "MaterializationEvent" if event["assetKey"]["path"][-1] == Stage.BIGQUERY_TABLE:
                rows = {entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]}
                self.outcomes[_partition(event)] = Outcome(rows[ROWS_LABEL])
            case "AssetCheckEvaluationEvent" if _failed(verdict := event["evaluation"]):
                self.outcomes[_partition(verdict)] = Outcome(reason=verdict["description"])
            case "ExecutionStepFailureEvent":
                message = event["error"]["message"].strip().partition("Failure: ")
                for each in AggregateType:
                    if event["stepKey"].startswith(each):
                        self.failures[each] = message[2] or message[0]
            case "RunFailureEvent":
                self.failures[None] = event["message"]


def _failed(verdict: Mapping[str, Any]) -> bool:
    return verdict["partition"] is not None and not verdict["success"] and verdict["severity"] == "ERROR"


def _partition(event: Mapping[str, Any]) -> Partition:
    return Partition(AggregateType(event["assetKey"]["path"][0]), date.fromisoformat(event["partition"]))
