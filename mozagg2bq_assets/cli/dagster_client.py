"""Launch, follow, retry and cancel a partition backfill, or a run of some days, on a running Dagster."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from mozagg2bq_assets.cli import graphql
from mozagg2bq_assets.cli.graphql import Webserver
from mozagg2bq_assets.cli.outcomes import ENDED_RUN, Outcome, RunEvents, RunState
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.tags import RANGE_END, RANGE_START, RETRIED_AS, WILL_RETRY
from mozagg2bq_assets.patience import Patience

POLL_SECONDS = 2.0
# For answers that fail while a backfill is followed: a webserver that is started anew takes its time.
PATIENCE_SECONDS = 600.0
CANCEL_SECONDS = 60.0

# Dagster's own job of all assets; the page launches it too.
_ASSET_JOB = "__ASSET_JOB"

_ENDED = ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", *ENDED_RUN)
_CANCELED = ("CANCELING", "CANCELED")


@dataclass(frozen=True)
class Progress:
    """How far a backfill or a run is. Partitions are days of a type; what is loaded into BigQuery is done."""

    status: str
    targeted: int
    outcomes: Mapping[Partition, Outcome]
    running: Sequence[str]
    error: str | None

    @property
    def done(self) -> int:
        """How many partitions are in BigQuery, empty ones among them."""
        return len(self.outcomes) - len(self.failed)

    @property
    def failed(self) -> dict[Partition, str]:
        """The partitions that failed, and why."""
        return {each: found.reason for each, found in sorted(self.outcomes.items()) if found.reason is not None}

    @property
    def empty(self) -> list[Partition]:
        """Those that are done, and have no rows."""
        return [each for each, found in sorted(self.outcomes.items()) if found == Outcome(rows=0)]

    @property
    def rows(self) -> int:
        """The rows of all."""
        return sum(found.rows for found in self.outcomes.values())

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in _ENDED

    @property
    def canceled(self) -> bool:
        """Whether it was canceled. Partitions that are not done then have not failed."""
        return self.status in _CANCELED

    @property
    def succeeded(self) -> bool:
        """Whether every partition was materialized."""
        return self.status in ("COMPLETED_SUCCESS", "SUCCESS")


@dataclass(frozen=True)
class _State:
    """What the webserver says of a backfill or run; the oldest of its runs first."""

    status: str
    runs: Sequence[RunState]
    targeted: int
    error: str | None


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at `url`. An id is a backfill's, or a run's.

    Every method raises TransientError where it does not answer, and UserError where it refuses.
    """

    url: str
    _events: dict[str, RunEvents] = field(default_factory=dict)

    @cached_property
    def _webserver(self) -> Webserver:
        return Webserver(self.url)

    def page(self, id_: str) -> str:
        """The page of a backfill or run."""
        return f"{self.url}/runs/{id_}" if is_run(id_) else f"{self.url}/runs/b/{id_}"

    def launch(
        self, types: Sequence[AggregateType], days: Sequence[date], stages: Sequence[Stage] = tuple(Stage)
    ) -> str:
        """Launch a backfill of stages of those days; returns its id. Dagster begins within half a minute."""
        parameters = {
            "assetSelection": _keys(types, stages),
            "partitionNames": [day.isoformat() for day in days],
            "title": f"{' and '.join(types)}, {days[0]} to {days[-1]}",
        }
        return str(self._webserver.ask(graphql.LAUNCH_BACKFILL, parameters=parameters)["backfillId"])

    def launch_run(self, types: Sequence[AggregateType], days: DayRange) -> str | None:
        """Launch all stages of those days as one run, at once; returns its id, or None if a run takes fewer days."""
        asset = self._webserver.ask(graphql.ASSET, key=_keys(types, Stage)[0])
        if len(days) > asset["backfillPolicy"]["maxPartitionsPerRun"]:
            return None
        first, last = min(days).isoformat(), max(days).isoformat()
        parameters = {
            "selector": {
                "repositoryName": asset["repository"]["name"],
                "repositoryLocationName": asset["repository"]["location"]["name"],
                "jobName": _ASSET_JOB,
                "assetSelection": _keys(types, Stage),
            },
            "executionMetadata": {"tags": [{"key": RANGE_START, "value": first}, {"key": RANGE_END, "value": last}]},
        }
        return str(self._webserver.ask(graphql.LAUNCH_RUN, parameters=parameters)["run"]["id"])

    def retry(self, id_: str) -> str:
        """Launch what of it has failed; returns the new id. A run takes its days again, but for committed ones."""
        if is_run(id_):
            return str(self._webserver.ask(graphql.RETRY_RUN, id=id_)["run"]["id"])
        return str(self._webserver.ask(graphql.RETRY_BACKFILL, id=id_)["backfillId"])

    def cancel(self, id_: str) -> None:
        """End its runs, queued ones too. What is committed stays.

        Runs are ended here, as the daemon sees a canceled backfill after half a minute, and may launch more until then.
        Raises UserError where one goes on all the same, and where there is nothing left to cancel.
        """
        self._check_not_over(id_)
        if not is_run(id_):
            self._webserver.ask(graphql.CANCEL_BACKFILL, id=id_)
        deadline, quiet = time.monotonic() + CANCEL_SECONDS, 0
        while quiet < 2:
            under_way = [run.id for run in self._state(id_).runs if not run.ended]
            quiet = 0 if under_way else quiet + 1
            if time.monotonic() > deadline:
                raise UserError(f"{kind(id_)} {id_} is canceled, but {len(under_way)} of its runs still go on")
            if under_way:
                self._webserver.ask(graphql.TERMINATE_RUNS, ids=under_way)
            time.sleep(POLL_SECONDS)
        self._check_not_over(id_)

    def _check_not_over(self, id_: str) -> None:
        status = self._state(id_).status
        if status in _ENDED and status not in _CANCELED:
            raise UserError(f"{kind(id_)} {id_} ended before it was canceled: {status}")

    def follow(self, id_: str, tell: Callable[[str], None] = lambda _: None) -> Iterator[Progress]:
        """Yield its progress every few seconds until it ends; failed requests are repeated, and reported to `tell`."""
        patience = Patience(PATIENCE_SECONDS, tell)
        while not (progress := patience.call(partial(self.progress, id_))).ended:
            yield progress
            time.sleep(POLL_SECONDS)
        yield progress

    def progress(self, id_: str) -> Progress:
        """How far it is. Only runs that are new or go on are asked for their events."""
        state = self._state(id_)
        for run in state.runs:
            self._events.setdefault(run.id, RunEvents()).read(self._webserver, run)
        running = [line for run in state.runs if run.status == "STARTED" for line in run.days]
        progress = Progress(state.status, state.targeted, self._outcomes(state.runs), running, state.error)
        return (
            replace(progress, outcomes={**self._unsaid(state.runs), **progress.outcomes})
            if progress.ended
            else progress
        )

    def _outcomes(self, runs: Sequence[RunState]) -> dict[Partition, Outcome]:
        """Each partition's outcome, from whichever run: what a run has loaded, no other run undoes."""
        found = [item for run in runs for item in self._events[run.id].outcomes.items()]
        return dict(sorted(found, key=lambda item: item[1].reason is None))

    def _unsaid(self, runs: Sequence[RunState]) -> dict[Partition, Outcome]:
        """A failure for each partition of failed runs: it stands where a killed run has said nothing of one."""
        return {
            partition: Outcome(reason=self._events[run.id].reason(partition))
            for run in runs
            if run.status == "FAILURE"
            for partition in run.partitions
        }

    def _state(self, id_: str) -> _State:
        return self._run_state(id_) if is_run(id_) else self._backfill_state(id_)

    def _backfill_state(self, backfill_id: str) -> _State:
        found = self._webserver.ask(graphql.BACKFILL, id=backfill_id)
        counts = {
            tuple(each["assetKey"]["path"]): each["numPartitionsTargeted"]
            for each in (found["assetBackfillData"] or {}).get("assetBackfillStatuses", ())
        }
        return _State(
            found["status"],
            [RunState.of(run) for run in reversed(found["runs"])],
            sum(days for (_, stage), days in counts.items() if stage == Stage.BIGQUERY_TABLE),
            found["error"] and found["error"]["message"].strip().splitlines()[0],
        )

    def _run_state(self, run_id: str) -> _State:
        """The state of a run and of those by which Dagster has repeated it after its process was killed."""
        runs = [RunState.of(self._webserver.ask(graphql.RUN, id=run_id))]
        while again := runs[-1].tags.get(RETRIED_AS):
            runs.append(RunState.of(self._webserver.ask(graphql.RUN, id=again)))
        status = "QUEUED" if runs[-1].tags.get(WILL_RETRY) == "true" else runs[-1].status
        return _State(status, runs, len(runs[0].partitions), None)


def is_run(id_: str) -> bool:
    """Whether it is the id of a run, a UUID; those of backfills are shorter."""
    try:
        UUID(id_)
    except ValueError:
        return False
    return True


def kind(id_: str) -> str:
    """What an id is of, as messages name it."""
    return "run" if is_run(id_) else "backfill"


def _keys(types: Sequence[AggregateType], stages: Iterable[Stage]) -> list[dict[str, Any]]:
    return [{"path": [each, stage]} for each in types for stage in stages]
