"""Launch, follow, retry and cancel a partition backfill on a running Dagster, over its GraphQL API."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property, partial
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests

from mozagg2bq_assets.errors import TransientError, UserError
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.patience import Patience

TIMEOUT_SECONDS = 60
POLL_SECONDS = 2.0
# For answers that fail while a backfill is followed: a webserver that is started anew takes its time.
PATIENCE_SECONDS = 600.0
CANCEL_SECONDS = 60.0

_ENDED = ("SUCCESS", "FAILURE", "CANCELED")

_LAUNCH = """
mutation Launch($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
_CANCEL = """
mutation Cancel($id: String!) {
  cancelPartitionBackfill(backfillId: $id) {
    ... on CancelBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
_RETRY = """
mutation Retry($id: String!) {
  reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
    ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
_TERMINATE = """
mutation Terminate($ids: [String!]!) {
  terminateRuns(runIds: $ids) {
    ... on TerminateRunsResult { terminateRunResults { __typename } } ... on Error { message }
  }
}
"""
_STATE = """
query State($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      error { message }
      runs { id status }
      assetBackfillData { assetBackfillStatuses {
        ... on AssetPartitionsStatusCounts {
          assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
        }
      } }
    }
    ... on Error { message }
  }
}
"""
_ROWS = """
query Rows($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { assetMaterializations {
      assetKey { path } partition
      metadataEntries { label ... on IntMetadataEntry { intValue } }
    } }
  }
}
"""


@dataclass(frozen=True)
class Progress:
    """How far a backfill is. Partitions are days of a type; `rows` are those loaded into BigQuery."""

    status: str
    targeted: int
    done: int
    failed: int
    rows: int
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED")

    @property
    def canceled(self) -> bool:
        """Whether it was canceled. Partitions that are not done then have not failed."""
        return self.status in ("CANCELING", "CANCELED")

    @property
    def succeeded(self) -> bool:
        """Whether every partition was materialized."""
        return self.status == "COMPLETED_SUCCESS"


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at `url`.

    Every method raises TransientError where it does not answer, and UserError where it refuses.
    """

    url: str
    # The rows of each partition that a run has loaded, by run; and the runs that have ended, which are not asked again.
    _loaded: dict[str, dict[tuple[str, ...], int]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def launch(
        self, types: Sequence[AggregateType], days: Sequence[date], stages: Sequence[Stage] = tuple(Stage)
    ) -> str:
        """Launch stages of those days; returns the backfill's id."""
        parameters = {
            "assetSelection": [{"path": [each, stage]} for each in types for stage in stages],
            "partitionNames": [day.isoformat() for day in days],
            "title": f"{' and '.join(types)}, {days[0]} to {days[-1]}",
        }
        return str(self._ask(_LAUNCH, "launchPartitionBackfill", {"parameters": parameters})["backfillId"])

    def retry(self, backfill_id: str) -> str:
        """Launch what of a backfill has failed; returns the new one's id."""
        return str(self._ask(_RETRY, "reexecutePartitionBackfill", {"id": backfill_id})["backfillId"])

    def cancel(self, backfill_id: str) -> None:
        """End its runs, queued ones too. What is committed stays. Raises UserError where one goes on all the same.

        Runs are ended here, as the daemon sees a canceled backfill after half a minute, and may launch more until then.
        """
        self._ask(_CANCEL, "cancelPartitionBackfill", {"id": backfill_id})
        deadline, quiet = time.monotonic() + CANCEL_SECONDS, 0
        while quiet < 2:
            runs = self._state(backfill_id)["runs"]
            under_way = [run["id"] for run in runs if run["status"] not in _ENDED]
            quiet = 0 if under_way else quiet + 1
            if time.monotonic() > deadline:
                raise UserError(f"backfill {backfill_id} is canceled, but {len(under_way)} of its runs still go on")
            if under_way:
                self._ask(_TERMINATE, "terminateRuns", {"ids": under_way})
            time.sleep(POLL_SECONDS)

    def follow(self, backfill_id: str, tell: Callable[[str], None] = lambda _: None) -> Iterator[Progress]:
        """Yield its progress every few seconds until it ends; failed requests are repeated, and reported to `tell`."""
        patience = Patience(PATIENCE_SECONDS, tell)
        while not (progress := patience.call(partial(self.progress, backfill_id))).ended:
            yield progress
            time.sleep(POLL_SECONDS)
        yield progress

    def progress(self, backfill_id: str) -> Progress:
        """How far it is."""
        state = self._state(backfill_id)
        last = [
            counts
            for counts in (state["assetBackfillData"] or {}).get("assetBackfillStatuses", ())
            if counts["assetKey"]["path"][-1] == Stage.BIGQUERY_TABLE
        ]
        return Progress(
            state["status"],
            sum(counts["numPartitionsTargeted"] for counts in last),
            sum(counts["numPartitionsMaterialized"] for counts in last),
            sum(counts["numPartitionsFailed"] for counts in last),
            self._rows(state["runs"]),
            state["error"] and state["error"]["message"].strip().splitlines()[0],
        )

    def _state(self, backfill_id: str) -> dict[str, Any]:
        return self._ask(_STATE, "partitionBackfillOrError", {"id": backfill_id})

    def _rows(self, runs: Sequence[Mapping[str, str]]) -> int:
        """Rows loaded so far, once for each partition, whichever of the runs has loaded it.

        Only runs that have not ended are queried again; those that have not started are not queried.
        """
        for run in runs:
            if run["id"] not in self._ended and run["status"] in ("STARTED", "CANCELING", *_ENDED):
                self._loaded[run["id"]] = self._rows_of(run["id"])
                if run["status"] in _ENDED:
                    self._ended.add(run["id"])
        partitions = {partition: rows for loaded in self._loaded.values() for partition, rows in loaded.items()}
        return sum(partitions.values())

    def _rows_of(self, run_id: str) -> dict[tuple[str, ...], int]:
        return {
            (*event["assetKey"]["path"], event["partition"]): entry["intValue"]
            for event in self._ask(_ROWS, "runOrError", {"id": run_id}).get("assetMaterializations", ())
            if event["assetKey"]["path"][-1] == Stage.BIGQUERY_TABLE
            for entry in event["metadataEntries"]
            if entry["label"] == "dagster/partition_row_count"
        }

    @cached_property
    def _session(self) -> requests.Session:
        """An HTTP session; for a loopback URL it ignores the environment's proxies, which could not reach it."""
        session = requests.Session()
        session.trust_env = not _is_loopback(urlsplit(self.url).hostname or "")
        return session

    def _ask(self, query: str, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._session.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=TIMEOUT_SECONDS
            )
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise TransientError(f"no Dagster answers at {self.url}: start one with `make dev` or `dg dev`") from error
        if answer.get("errors"):
            raise TransientError(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        result: dict[str, Any] = answer["data"][name]
        if message := result.get("message"):
            raise UserError(f"Dagster at {self.url}: {message.strip().splitlines()[0]}")
        return result


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
