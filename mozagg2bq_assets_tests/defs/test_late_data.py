"""The sensor for late data and the daily schedule, on a real instance: what they launch, and what they do not."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import pytest
from dagster import (
    AssetCheckEvaluation,
    DagsterInstance,
    Definitions,
    RunRequest,
    SensorResult,
    SkipReason,
    build_sensor_context,
)

from mozagg2bq_assets.defs.keys import UP_TO_DATE, job_name, source_key
from mozagg2bq_assets.defs.late_data import LATE_TAG
from mozagg2bq_assets.defs.partitions import range_tags
from mozagg2bq_assets.model.tags import RANGE_END, RANGE_START
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, merge, schedule_context

FIRST, SECOND, THIRD = DAYS
TABLES = {day: f"build_id_nightly_73_{day:%Y%m%d}" for day in DAYS}


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    """An instance that remembers what was launched."""
    with DagsterInstance.local_temp() as instance:
        yield instance


@pytest.fixture
def definitions(pipeline: Pipeline) -> Definitions:
    """The project's, over a source of three days."""
    from mozagg2bq_assets.definitions import defs

    return defs()


def tick(definitions: Definitions, instance: DagsterInstance, cursor: str | None = None) -> SensorResult | SkipReason:
    """What the sensor says."""
    context = build_sensor_context(
        instance=instance, cursor=cursor, definitions=definitions, resources=dict(definitions.resources or {})
    )
    result = definitions.get_sensor_def(f"{TYPE}_late_data")(context)
    assert isinstance(result, SensorResult | SkipReason)
    return result


def launch(definitions: Definitions, instance: DagsterInstance, tags: dict[str, str]) -> bool:
    """Take a run to its end; whether it succeeded."""
    job = definitions.resolve_job_def(job_name(TYPE))
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False).success


def ranges(result: SensorResult | SkipReason) -> list[tuple[str, str]]:
    """First and last day of each requested run."""
    assert isinstance(result, SensorResult)
    tags = [request.tags for request in result.run_requests or []]
    return [(each[RANGE_START], each[RANGE_END]) for each in tags]


def evaluation(result: SensorResult | SkipReason) -> AssetCheckEvaluation:
    """The check's verdict of a tick."""
    assert isinstance(result, SensorResult)
    (event,) = result.asset_events
    assert isinstance(event, AssetCheckEvaluation)
    assert (event.asset_key, event.check_name) == (source_key(TYPE), UP_TO_DATE)
    return event


ALL = range_tags(DAYS)


def requests_of(result: SensorResult | SkipReason) -> list[RunRequest]:
    """The runs that are asked for."""
    assert isinstance(result, SensorResult)
    return list(result.run_requests or [])


def test_days_that_are_behind(definitions: Definitions, instance: DagsterInstance, pipeline: Pipeline) -> None:
    """A run for each stretch of days that have grown, and none for others; the check names them until then."""
    assert evaluation(tick(definitions, instance)).passed  # nothing was ever ingested, so nothing is late
    assert launch(definitions, instance, ALL)
    quiet = tick(definitions, instance)
    assert (ranges(quiet), evaluation(quiet).passed) == ([], True)
    assert isinstance(quiet, SensorResult)
    again = tick(definitions, instance, quiet.cursor)
    assert isinstance(again, SensorResult)
    assert again.asset_events == []
    for day in (FIRST, THIRD):
        merge(pipeline.source, TABLES[day], "20191220")
    behind = tick(definitions, instance, quiet.cursor)
    assert ranges(behind) == [(str(FIRST), str(FIRST)), (str(THIRD), str(THIRD))]
    assert evaluation(behind).description == (
        f"behind the source: {FIRST}, {THIRD}: turn the sensor for late data on, or materialize them"
    )
    for request in requests_of(behind):
        assert launch(definitions, instance, dict(request.tags))
    done = tick(definitions, instance)
    assert (ranges(done), evaluation(done).passed) == ([], True)
    assert pipeline.reconcile().differences == []


def test_a_lost_cursor_and_an_empty_instance(
    definitions: Definitions, instance: DagsterInstance, pipeline: Pipeline
) -> None:
    """What is loaded is known from the lake, so neither asks for anything."""
    assert launch(definitions, instance, ALL)
    with DagsterInstance.ephemeral() as other:
        assert ranges(tick(definitions, other)) == []
        merge(pipeline.source, TABLES[SECOND], "20191220")
        assert ranges(tick(definitions, other)) == [(str(SECOND), str(SECOND))]


def test_days_under_way(definitions: Definitions, instance: DagsterInstance, pipeline: Pipeline) -> None:
    """Are not asked for again."""
    assert launch(definitions, instance, ALL)
    merge(pipeline.source, TABLES[SECOND], "20191220")
    (request,) = requests_of(tick(definitions, instance))
    instance.create_run_for_job(definitions.resolve_job_def(job_name(TYPE)), tags=dict(request.tags))
    assert ranges(tick(definitions, instance)) == []


def test_a_day_that_fails(definitions: Definitions, instance: DagsterInstance, pipeline: Pipeline) -> None:
    """It is tried once more, and then when the source changes."""
    assert launch(definitions, instance, ALL)
    merge(pipeline.source, TABLES[SECOND], "20191220")
    pipeline.source.execute(f"ALTER TABLE {TABLES[SECOND]} RENAME COLUMN histogram TO buckets".encode())
    for _ in range(2):
        (request,) = requests_of(tick(definitions, instance))
        assert not launch(definitions, instance, dict(request.tags))
    assert ranges(tick(definitions, instance)) == []
    pipeline.source.execute(f"ALTER TABLE {TABLES[SECOND]} RENAME COLUMN buckets TO histogram".encode())
    assert ranges(tick(definitions, instance)) == []
    merge(pipeline.source, TABLES[SECOND], "20191221")
    (request,) = requests_of(tick(definitions, instance))
    assert LATE_TAG in request.tags
    assert launch(definitions, instance, dict(request.tags))


def test_a_source_that_is_away(
    definitions: Definitions, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tick says so in a line."""
    from mozagg2bq_assets.definitions import defs

    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    skipped = tick(defs(), instance)
    assert isinstance(skipped, SkipReason)
    assert "source and lake cannot be compared now: cannot connect to PostgreSQL" in str(skipped.skip_message)


def test_every_day(
    definitions: Definitions, instance: DagsterInstance, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Yesterday and the days before it that nothing is loaded of, as stretches; days that are loaded are left alone."""
    assert launch(definitions, instance, ALL | {RANGE_START: str(SECOND)})
    context = schedule_context(definitions, instance, datetime(2019, 12, 6, 6, tzinfo=UTC))
    requests = definitions.get_schedule_def(f"{job_name(TYPE)}_schedule")(context)
    tags = [request.tags for request in requests]  # type: ignore[union-attr]
    found = [(each[RANGE_START], each[RANGE_END]) for each in tags]
    assert found == [("2019-11-29", str(FIRST)), ("2019-12-04", "2019-12-05")]


def test_yesterday_without_source(definitions: Definitions, instance: DagsterInstance) -> None:
    """Its run fails, so that it is not green and empty, and is asked for again."""
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    tags = dict.fromkeys(ALL, str(yesterday))
    assert not launch(definitions, instance, tags)
    assert isinstance(yesterday, date)
