"""Dagster's GraphQL API: how it is asked, and the questions. What the answers mean is not known here."""

import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests

from mozagg2bq_assets.errors import TransientError, UserError

# To launch a run, the webserver writes an event for each of its days and stages first.
TIMEOUT_SECONDS = 120

LAUNCH_BACKFILL = """
mutation Launch($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
LAUNCH_RUN = """
mutation LaunchRun($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    ... on LaunchRunSuccess { run { id } } ... on Error { message }
  }
}
"""
CANCEL_BACKFILL = """
mutation Cancel($id: String!) {
  cancelPartitionBackfill(backfillId: $id) {
    ... on CancelBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
RETRY_BACKFILL = """
mutation Retry($id: String!) {
  reexecutePartitionBackfill(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
    ... on LaunchBackfillSuccess { backfillId } ... on Error { message }
  }
}
"""
RETRY_RUN = """
mutation RetryRun($id: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
    ... on LaunchRunSuccess { run { id } } ... on Error { message }
  }
}
"""
TERMINATE_RUNS = """
mutation Terminate($ids: [String!]!) {
  terminateRuns(runIds: $ids) {
    ... on TerminateRunsResult { terminateRunResults { __typename } } ... on Error { message }
  }
}
"""
ASSET = """
query Asset($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { backfillPolicy { maxPartitionsPerRun } repository { name location { name } } }
    ... on Error { message }
  }
}
"""
BACKFILL = """
query State($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      error { message }
      runs { id status tags { key value } assetSelection { path } }
      assetBackfillData { assetBackfillStatuses {
        ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsTargeted }
      } }
    }
    ... on Error { message }
  }
}
"""
RUN = """
query State($id: ID!) {
  runOrError(runId: $id) {
    ... on Run { id status tags { key value } assetSelection { path } stepKeysToExecute }
    ... on Error { message }
  }
}
"""
EVENTS = """
query Events($id: ID!, $after: String) {
  runOrError(runId: $id) {
    ... on Run { eventConnection(afterCursor: $after) { cursor hasMore events {
      __typename
      ... on MaterializationEvent {
        assetKey { path } partition metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
      ... on AssetCheckEvaluationEvent { evaluation { assetKey { path } partition success severity description } }
      ... on ExecutionStepFailureEvent { stepKey error { message } }
      ... on RunFailureEvent { message }
    } } }
    ... on Error { message }
  }
}
"""


@dataclass(frozen=True)
class Webserver:
    """A Dagster webserver at `url`."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """The one field that a query asks for.

        Raises TransientError without an answer or for one with `errors`, UserError where Dagster refuses.
        """
        try:
            response = self._session.post(
                f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=TIMEOUT_SECONDS
            )
            answer = response.json()
        except (requests.RequestException, ValueError) as error:
            raise TransientError(f"no Dagster answers at {self.url}: start one with `make dev` or `dg dev`") from error
        if answer.get("errors"):
            raise TransientError(f"Dagster at {self.url}: {answer['errors'][0]['message']}")
        result: dict[str, Any]
        (result,) = answer["data"].values()
        if message := result.get("message"):
            # Some begin with the name of an exception.
            said = re.sub(r"^[\w.]+Error: ", "", message.strip().splitlines()[0])
            raise UserError(f"Dagster at {self.url}: {said}")
        return result

    @cached_property
    def _session(self) -> requests.Session:
        """An HTTP session; for a loopback URL it ignores the environment's proxies, which could not reach it."""
        session = requests.Session()
        session.trust_env = not _is_loopback(urlsplit(self.url).hostname or "")
        return session


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
