"""Launch, follow and cancel a partition backfill on a running Dagster, over its GraphQL API."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import requests

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.tables import AggregateType

TIMEOUT_SECONDS = 60
POLL_SECONDS = 2.0

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
    def succeeded(self) -> bool:
        """Whether every partition was materialized."""
        return self.status == "COMPLETED_SUCCESS"


@dataclass(frozen=True)
class DagsterClient:
    """The webserver at `url`. Every method raises UserError where it cannot be reached or refuses."""

    url: str
    _rows_by_run: dict[str, int] = field(default_factory=dict)

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

    def cancel(self, backfill_id: str) -> None:
        """Ask for its runs to be ended. What is committed stays."""
        self._ask(_CANCEL, "cancelPartitionBackfill", {"id": backfill_id})

    def follow(self, backfill_id: str) -> Iterator[Progress]:
        """Its progress every few seconds, until it has ended."""
        while not (progress := self.progress(backfill_id)).ended:
            yield progress
            time.sleep(POLL_SECONDS)
        yield progress

    def progress(self, backfill_id: str) -> Progress:
        """How far it is."""
        state = self._ask(_STATE, "partitionBackfillOrError", {"id": backfill_id})
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
            sum(map(self._rows, state["runs"])),
            state["error"] and state["error"]["message"].strip().splitlines()[0],
        )

    def _rows(self, run: Mapping[str, str]) -> int:
        """Rows that a run has loaded so far; asked once of a run that has ended."""
        if run["id"] in self._rows_by_run:
            return self._rows_by_run[run["id"]]
        loaded = {
            (*event["assetKey"]["path"], event["partition"]): entry["intValue"]
            for event in self._ask(_ROWS, "runOrError", {"id": run["id"]}).get("assetMaterializations", ())
            if event["assetKey"]["path"][-1] == Stage.BIGQUERY_TABLE
            for entry in event["metadataEntries"]
            if entry["label"] == "rows"
        }
        rows: int = sum(loaded.values())
        if run["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
            self._rows_by_run[run["id"]] = rows
        return rows

    def _ask(self, query: str, name: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = requests.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=TIMEOUT_SECONDS
            )
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise UserError(f"no Dagster answers at {self.url}: start one with `make dev` or `dagster dev`") from error
        if answer.get("errors"):
            raise UserError(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        result: dict[str, Any] = answer["data"][name]
        if message := result.get("message"):
            raise UserError(f"Dagster at {self.url}: {message.strip().splitlines()[0]}")
        return result
