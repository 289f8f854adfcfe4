"""Alarms: each cause once, to a receiver that may be away at first."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from dagster import DagsterInstance

from mozagg2bq_assets.defs import alarms
from mozagg2bq_assets.defs.alarms import Memory
from mozagg2bq_assets.defs.keys import job_name
from mozagg2bq_assets.defs.partitions import range_tags
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets_tests.helpers.alarms import texts, tick
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy, Request
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, merge

FIRST, SECOND, THIRD = DAYS
TABLE = "build_id_nightly_73_20191202"


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance that remembers runs."""
    with DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance: DagsterInstance) -> bool:
    """All stages of all days."""
    from mozagg2bq_assets.definitions import defs

    job = defs().resolve_job_def(job_name(TYPE))
    return job.execute_in_process(instance=instance, tags=range_tags(DAYS), raise_on_error=False).success


def test_each_cause_once(
    pipeline: Pipeline, instance: DagsterInstance, receiver: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that failed, days that stay behind, a table that is lost, a type that loads nothing, a difference."""
    assert tick(instance, None)[0] == "0 alarms told, 0 known already"
    cursor = tick(instance, None)[1]
    assert run(instance)
    said, cursor = tick(instance, cursor)
    assert (said, texts(receiver)) == ("0 alarms told, 0 known already", [])

    pipeline.source.execute(f"ALTER TABLE {TABLE} RENAME COLUMN histogram TO buckets".encode())
    assert not run(instance)
    cursor = tick(instance, cursor)[1]
    (failed,) = texts(receiver)
    assert failed.startswith(f"build_id_job {FIRST} has failed: ")
    assert "the columns of build_id_nightly_73_20191202 are not" in failed
    assert f"({SECOND}); 1 of 3 days of build_id failed: " in failed
    assert "What to do: see the run, mend the cause, and re-execute it from failure" in failed
    assert "http://dagster.example.com/runs/" in failed

    pipeline.source.execute(f"ALTER TABLE {TABLE} RENAME COLUMN buckets TO histogram".encode())
    merge(pipeline.source, TABLE, "20191220")
    said, cursor = tick(instance, cursor)
    assert len(texts(receiver)) == 1
    memory = Memory.read(cursor)
    (key,) = memory.late_since
    memory.late_since[key] = (datetime.now(UTC) - timedelta(hours=25)).isoformat()
    said, cursor = tick(instance, memory.write())
    assert texts(receiver)[-1].startswith(f"{SECOND} of build_id has been behind the source for more than 24 hours")
    pipeline.source.execute(f"DELETE FROM table_update_dates WHERE tablename = '{TABLE}'".encode())
    pipeline.source.execute(f"DROP TABLE {TABLE}".encode())
    cursor = tick(instance, cursor)[1]
    assert texts(receiver)[-1].startswith(f"{SECOND} of build_id has lost 1 tables in the source, among them {TABLE}")
    monkeypatch.setattr(alarms, "SILENT_HOURS", 0)
    cursor = tick(instance, cursor)[1]
    assert texts(receiver)[-1].startswith("build_id has loaded nothing since ")
    pipeline.lake.delete(pipeline.object_keys(Stage.PARQUET, ".parquet", SECOND))
    reconciled(instance)
    cursor = tick(instance, cursor)[1]
    assert texts(receiver)[-1].startswith(f"build_id does not agree: {SECOND}: ")
    assert tick(instance, cursor)[0].startswith("0 alarms told")
    assert len(texts(receiver)) == 5


def reconciled(instance: DagsterInstance) -> None:
    """Run the checks over all days."""
    from mozagg2bq_assets.definitions import defs

    assert defs().resolve_job_def("reconciliation_job").execute_in_process(instance=instance).success


def test_a_receiver_that_is_away(pipeline: Pipeline, instance: DagsterInstance, receiver: HttpProxy) -> None:
    """It is told later, and once; no message shows the URL."""
    cursor = tick(instance, None)[1]
    pipeline.source.execute(f"ALTER TABLE {TABLE} RENAME COLUMN histogram TO buckets".encode())
    assert not run(instance)
    left = [Answer(0), Answer(503)]

    def fault(_: Request, __: object) -> Answer:
        return left.pop(0) if left else Answer(200)

    receiver.fault = fault
    said, cursor = tick(instance, cursor)
    assert said == "the webhook cannot be reached (ConnectionError): it is tried again"
    said, cursor = tick(instance, cursor)
    assert said == "the webhook answers 503: check ALERT_WEBHOOK_URL; it is tried again"
    said, cursor = tick(instance, cursor)
    assert said == "1 alarms told, 0 known already"
    assert tick(instance, cursor)[0] == "0 alarms told, 0 known already"
    assert "secret" not in cursor


def test_nobody_to_tell(stack: object, instance: DagsterInstance) -> None:
    """Without a webhook the tick says so."""
    assert "ALERT_WEBHOOK_URL is not set" in tick(instance, None)[0]
