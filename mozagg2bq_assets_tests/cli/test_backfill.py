"""Backfills on a real `dagster dev`, launched by the command."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.cli.dagster_client import DagsterClient
from mozagg2bq_assets.lake.manifest import MANIFESTS
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets_tests.helpers.cli import COMMAND
from mozagg2bq_assets_tests.helpers.dagster import dagster_dev
from mozagg2bq_assets_tests.helpers.proxies import Answer, http_proxy

START, END = date(2019, 12, 1), date(2019, 12, 11)
MISSING, DAMAGED = date(2019, 12, 4), date(2019, 12, 7)
DAYS = DayRange(START, END)
# So that all days are a backfill of two runs, and fewer days one run.
DAYS_PER_RUN = 5
END_SECONDS = 180


@pytest.fixture
def dagster_url(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse, tmp_path: Path) -> Iterator[str]:
    """`dagster dev` with a home of its own, over a source, a lake and a dataset of the test's own."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PARTITIONS_PER_RUN": str(DAYS_PER_RUN)}
    with dagster_dev(tmp_path, environment) as (url, _):
        yield url


def command(url: str, *arguments: str) -> tuple[str, ...]:
    """The command line of a backfill."""
    return (COMMAND, "backfill", "--url", url, *arguments)


def backfill(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(command(url, *arguments), capture_output=True, text=True, check=False, timeout=400)


def ask(url: str, query: str, **variables: Any) -> Any:
    """What the webserver answers to a query of one field."""
    answer = requests.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
    assert "errors" not in answer, answer["errors"]
    (field,) = answer["data"].values()
    return field


def wait_for(status: Callable[[], str], wanted: str) -> None:
    """Until a status is the wanted one."""
    deadline = time.monotonic() + END_SECONDS
    while (found := status()) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        time.sleep(0.5)


def states(url: str, aggregate_type: AggregateType, stage: Stage) -> dict[date, str]:
    """The state of each of a stage's days, as the partition view shows it."""
    answer = ask(
        url,
        """query States($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
            assetPartitionStatuses { ... on TimePartitionStatuses { ranges { startKey endKey status } } } } } }""",
        key={"path": [aggregate_type, stage]},
    )
    return {
        day: found["status"]
        for found in answer["assetPartitionStatuses"]["ranges"]
        for day in DayRange(
            date.fromisoformat(found["startKey"]), date.fromisoformat(found["endKey"]) + timedelta(days=1)
        )
    }


def check(url: str, aggregate_type: AggregateType, stage: Stage, day: date) -> tuple[bool, str]:
    """The last result of a day's check of rows: whether it passed, and its severity."""
    (execution,) = ask(
        url,
        """query Check($key: AssetKeyInput!, $day: String) { assetCheckExecutions(
            assetKey: $key, checkName: "row_count", partition: $day, limit: 1
        ) { evaluation { success severity } } }""",
        key={"path": [aggregate_type, stage]},
        day=day.isoformat(),
    )
    return execution["evaluation"]["success"], execution["evaluation"]["severity"]


def reexecute(url: str) -> None:
    """Re-execute the run that failed last, to its end, as the page of the run does."""
    failed, *_ = ask(
        url,
        """query Failed { runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId } } } }""",
    )["results"]
    launched = ask(
        url,
        """mutation Again($parent: String!) { launchRunReexecution(
            reexecutionParams: {parentRunId: $parent, strategy: FROM_FAILURE}
        ) { ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }""",
        parent=failed["runId"],
    )
    query = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
    wait_for(lambda: ask(url, query, id=launched["run"]["runId"])["status"], "SUCCESS")


def versions(lake: Lake, aggregate_type: AggregateType) -> dict[tuple[Stage, date], str]:
    """The versions that the lake has of each day in each stage."""
    manifests = [(kind.of, day, lake.read(kind, Partition(aggregate_type, day))) for kind in MANIFESTS for day in DAYS]
    return {(stage, day): manifest.version for stage, day, manifest in manifests if manifest}


def seed(administrator: psycopg.Connection, scale: float) -> None:
    """Both types' days, but for the missing one."""
    sample.create_update_dates(administrator)
    for aggregate_type in AggregateType:
        for day in DAYS:
            if day != MISSING:
                for _ in sample.seed_partition(administrator, Partition(aggregate_type, day), scale):
                    pass


def test_twenty_partitions(
    dagster_url: str, administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse
) -> None:
    """Both types, one day missing and one damaged: all others are in BigQuery; once mended, that one too."""
    seed(administrator, 0.0001)
    table = f"build_id_nightly_73_{DAMAGED:%Y%m%d}"
    administrator.execute(f"ALTER TABLE {table} RENAME histogram TO other")
    submission, build = AggregateType

    result = backfill(dagster_url, "--start", str(START), "--end", str(END))
    assert result.returncode == 1, result.stdout + result.stderr
    assert "COMPLETED_FAILED: 19 of 20 partitions done, 1 failed" in result.stderr
    assert warehouse.count_days(submission, DAYS).keys() == set(DAYS) - {MISSING}
    assert warehouse.count_days(build, DAYS).keys() == set(DAYS) - {MISSING, DAMAGED}
    assert f"build_id {DAMAGED} failed: " in result.stdout
    assert f"the columns of {table} are not dimensions jsonb, histogram bigint[]" in result.stdout
    assert f"2 days are empty: build_id {MISSING}, submission_date {MISSING}\n" in result.stdout
    for each in AggregateType:
        assert f"running {each} {START} to {START + timedelta(days=DAYS_PER_RUN - 1)}\n" in result.stderr
    done = dict.fromkeys(DAYS, "MATERIALIZED")
    for stage in Stage:
        assert states(dagster_url, submission, stage) == done
        assert states(dagster_url, build, stage) == done | {DAMAGED: "FAILED"}
        assert check(dagster_url, build, stage, MISSING) == (False, "WARN")
        assert check(dagster_url, build, stage, START)[0]
        assert check(dagster_url, submission, stage, DAMAGED)[0]
    assert check(dagster_url, build, Stage.RAW_DUMP, DAMAGED) == (False, "ERROR")

    # What is still wrong fails again, alone; rows are those of the retry.
    failed = result.stdout.removeprefix("backfill ").partition(":")[0]
    canceled = backfill(dagster_url, "--cancel", failed)
    assert canceled.stderr == f"Error: backfill {failed} ended before it was canceled: COMPLETED_FAILED\n"
    assert f"`mozagg2bq backfill --retry {failed}` launches what has failed" in result.stderr
    result = backfill(dagster_url, "--retry", failed, "--json", "--quiet")
    assert result.returncode == 1
    assert "COMPLETED_FAILED: 0 of 1 partitions done, 1 failed, 0 rows" in result.stderr
    assert "running" not in result.stderr
    found = json.loads(result.stdout)
    (failure,) = found.pop("failed")
    assert table in failure.pop("reason")
    assert failure == {"type": "build_id", "day": str(DAMAGED)}
    assert found == {
        "id": found["id"],
        "url": f"{dagster_url}/runs/b/{found['id']}",
        "status": "COMPLETED_FAILED",
        "targeted": 1,
        "done": 0,
        "empty": [],
        "rows": 0,
    }

    administrator.execute(f"ALTER TABLE {table} RENAME other TO histogram")
    before = versions(lake, build)
    reexecute(dagster_url)
    after = versions(lake, build)
    assert after.keys() - before.keys() == {(stage, DAMAGED) for stage in Stage}
    assert before.items() <= after.items()
    assert states(dagster_url, build, Stage.BIGQUERY_TABLE) == done
    assert check(dagster_url, build, Stage.RAW_DUMP, DAMAGED)[0]

    anew = ("--start", str(DAMAGED), "--end", str(DAMAGED + timedelta(days=1)), "--aggregate-type", "build_id")
    with http_proxy(dagster_url) as proxy:
        proxy.fail(2, lambda request: b"query State" in request.body, Answer(500, b"away for a moment"))
        result = backfill(proxy.url, *anew)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "1 of 1 partitions done, 0 failed" in result.stdout
        assert result.stderr.count("waiting ") == 2
        launched, followed, *_ = result.stdout.splitlines()
        run_id = followed.removeprefix("run ").partition(":")[0]
        assert launched == f"1 day fits into one run: run {run_id} launched directly"
        assert followed == f"run {run_id}: {proxy.url}/runs/{run_id}"
        client = DagsterClient(proxy.url)
        assert client.progress(run_id).rows > 0
        del proxy.requests[:]
        # Of a run that has ended there is nothing new to ask.
        assert client.progress(run_id).rows == client.progress(run_id).rows
        assert len(proxy.requests) == 2
    relaunched = versions(lake, build).items() ^ after.items()
    assert {key for key, _ in relaunched} == {(stage, DAMAGED) for stage in Stage}
    for aggregate_type in AggregateType:
        report = reconcile(administrator, lake, warehouse, aggregate_type, DAYS, count_source=True)
        assert report.differences == []


def test_interrupted_and_canceled(
    dagster_url: str, administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse
) -> None:
    """Ctrl-C leaves a backfill running and says how to look at it; `--cancel` ends it, also a run under way."""
    seed(administrator, 0.02)
    arguments = command(dagster_url, "--start", str(START), "--end", str(END))
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        backfill_id = process.stdout.readline().removeprefix("backfill ").partition(":")[0]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"it goes on: look at {dagster_url}/runs/b/{backfill_id}" in errors
    assert f"--cancel {backfill_id}" in errors

    follow = subprocess.Popen(
        command(dagster_url, "--follow", backfill_id), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    client = DagsterClient(dagster_url)
    under_way = next(state for state in client.follow(backfill_id) if state.done)
    # Days count as they are done, not when their run ends.
    assert under_way.running
    assert under_way.done < len(AggregateType) * DAYS_PER_RUN
    canceled = backfill(dagster_url, "--cancel", backfill_id)
    assert canceled.stdout == f"backfill {backfill_id} is canceled: none of its runs goes on\n"
    runs = "query Runs { runsOrError(filter: {statuses: [STARTED, QUEUED]}) { ... on Runs { results { id } } } }"
    assert ask(dagster_url, runs)["results"] == []
    wait_for(lambda: client.progress(backfill_id).status, "CANCELED")
    _, errors = follow.communicate(timeout=60)
    assert follow.returncode == 1
    assert f"backfill {backfill_id} was canceled: " in errors
    # What was committed before is whole, and nothing else is left.
    for aggregate_type in AggregateType:
        for day in warehouse.count_days(aggregate_type, DAYS):
            one_day = DayRange(day, day + timedelta(days=1))
            report = reconcile(administrator, lake, warehouse, aggregate_type, one_day, count_source=True)
            assert report.differences == []

    arguments = command(dagster_url, "--start", str(START), "--end", str(MISSING))
    with (
        administrator.transaction(),
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        # So that the run cannot have ended before it is canceled.
        administrator.execute(f"LOCK TABLE build_id_nightly_73_{START:%Y%m%d} IN ACCESS EXCLUSIVE MODE")
        assert process.stdout is not None
        assert "3 days fit into one run" in process.stdout.readline()
        run_id = process.stdout.readline().removeprefix("run ").partition(":")[0]
        canceled = backfill(dagster_url, "--cancel", run_id, "--json")
        assert json.loads(canceled.stdout)["status"] == "CANCELED"
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"run {run_id} was canceled: " in errors
    again = backfill(dagster_url, "--retry", run_id)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "6 of 6 partitions done, 0 failed" in again.stdout
    succeeded = again.stdout.removeprefix("run ").partition(":")[0]
    canceled = backfill(dagster_url, "--cancel", succeeded)
    assert canceled.stderr == f"Error: run {succeeded} ended before it was canceled: SUCCESS\n"
    unknown = backfill(dagster_url, "--cancel", "nonesuch")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1), unknown.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--start", "1999-12-01", "--end", "1999-12-02"), "is outside the partitions"),
        (("--date", "2019-12-01"), "no Dagster answers at http://127.0.0.1:1"),
        (("--cancel", "nonesuch"), "no Dagster answers at http://127.0.0.1:1"),
    ],
)
def test_errors(arguments: tuple[str, ...], message: str) -> None:
    """One line that says what is wrong."""
    result = backfill("http://127.0.0.1:1", *arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
