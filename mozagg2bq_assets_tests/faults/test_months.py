"""Weeks of a project that is left on, day by day: the aggregator's work, schedules, sensors, and what goes wrong.

Only the days are simulated: source, lake, BigQuery, sensor, schedule, jobs and runs are the real ones. All days lie in
the past, so that they are partitions, and one that has no source yet fails, as a young one does.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from threading import Timer

import pytest
from dagster import (
    DagsterInstance,
    Definitions,
    SensorResult,
    build_sensor_context,
)
from hypothesis import settings

from mozagg2bq_assets.defs.keys import job_name, stage_key
from mozagg2bq_assets.defs.partitions import range_tags
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.tags import RANGE_END, RANGE_START
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets_tests.helpers import alarms
from mozagg2bq_assets_tests.helpers.proxies import HttpProxy
from mozagg2bq_assets_tests.helpers.runs import Pipeline, merge, schedule_context

DAYS = 60 if settings().max_examples == 500 else 12
START = date(2019, 10, 1)
BUILDS_GROW_DAYS = 14
# Days of the simulation on which something happens.
OUTAGE = (4, 5)
SHRINKS, TRIMMED, CHANGES_DURING_A_RUN, SECOND_INSTANCE = 7, 8, 9, 10
OLD = DayRange(date(2017, 10, 1), date(2017, 10, 4))


@dataclass
class World:
    """The simulated weeks so far: how often each partition's source has changed, was loaded, and has failed."""

    pipeline: Pipeline
    instances: list[DagsterInstance]
    changes: Counter[Partition] = field(default_factory=Counter)
    loads: Counter[Partition] = field(default_factory=Counter)
    failures: Counter[Partition] = field(default_factory=Counter)
    alarm_cursors: dict[int, str] = field(default_factory=dict)
    failed_runs: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(2019))  # noqa: S311

    def definitions(self) -> Definitions:
        """As a code location loads them now."""
        from mozagg2bq_assets.definitions import defs

        return defs()

    def change(self, table: str, partition: Partition, day: date) -> None:
        """The aggregator merges a submission date into a table."""
        merge(self.pipeline.source, table, f"{day:%Y%m%d}")
        self.changes[partition] += 1

    def aggregate(self, day: date, n: int) -> None:
        """What the aggregator does on a day: its submission date, one in five of them three days late, and builds."""
        late = day - timedelta(days=3)
        for each in (late if (n - 3) % 5 == 2 and n >= 3 else None, None if n % 5 == 2 else day):
            if each:
                for channel in ("nightly", "beta"):
                    name = f"submission_date_{channel}_73_{each:%Y%m%d}"
                    self.change(name, Partition(AggregateType.SUBMISSION_DATE, each), each)
        for age in range(BUILDS_GROW_DAYS):
            build = day - timedelta(days=age)
            if build >= START and (age == 0 or self.chance.random() < 0.15):
                self.change(f"build_id_nightly_73_{build:%Y%m%d}", Partition(AggregateType.BUILD_ID, build), day)

    def launch(self, aggregate_type: AggregateType, instance: DagsterInstance, tags: dict[str, str]) -> None:
        """Take a run to its end, and count what it has loaded."""
        job = self.definitions().resolve_job_def(job_name(aggregate_type))
        result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        self.failed_runs += not result.success
        key = stage_key(aggregate_type, Stage.BIGQUERY_TABLE)
        loaded = {
            Partition(aggregate_type, date.fromisoformat(str(event.partition)))
            for event in result.get_asset_materialization_events()
            if event.asset_key == key
        }
        self.loads.update(loaded)
        first, last = (date.fromisoformat(tags[name]) for name in (RANGE_START, RANGE_END))
        asked = {Partition(aggregate_type, day) for day in DayRange(first, last + timedelta(days=1))}
        self.failures.update(asked - loaded)

    def schedule(self, day: date, instance: DagsterInstance) -> None:
        """Six o'clock on the next day."""
        definitions = self.definitions()
        for aggregate_type in AggregateType:
            moment = datetime(day.year, day.month, day.day, 6, tzinfo=UTC) + timedelta(days=1)
            context = schedule_context(definitions, instance, moment)
            requests = definitions.get_schedule_def(f"{job_name(aggregate_type)}_schedule")(context)
            for request in list(requests):  # type: ignore[arg-type]
                self.launch(aggregate_type, instance, dict(request.tags))

    def look_for_alarms(self, instance: DagsterInstance) -> None:
        """The sensor `alarms`, once."""
        cursor = self.alarm_cursors.get(id(instance))
        self.alarm_cursors[id(instance)] = alarms.tick(instance, cursor)[1]

    def tick(self, instance: DagsterInstance) -> int:
        """Each sensor once, without a cursor, as if that had been lost; returns how many runs it has launched."""
        launched = 0
        definitions = self.definitions()
        for aggregate_type in AggregateType:
            resources = dict(definitions.resources or {})
            context = build_sensor_context(instance=instance, definitions=definitions, resources=resources)
            result = definitions.get_sensor_def(f"{aggregate_type}_late_data")(context)
            for request in (isinstance(result, SensorResult) and result.run_requests) or []:
                self.launch(aggregate_type, instance, dict(request.tags))
                launched += 1
        return launched


@pytest.fixture
def world(empty_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two Dagster instances over a source with some days of two years ago, which are loaded."""
    monkeypatch.setenv("PARTITIONS_START", str(OLD.start))
    monkeypatch.setenv("SOURCE_GRACE_HOURS", "1e6")
    monkeypatch.setenv("INGEST_LAG_DAYS", "6")
    sample.create_update_dates(empty_pipeline.source)
    with DagsterInstance.local_temp() as first, DagsterInstance.local_temp() as second:
        world = World(empty_pipeline, [first, second])
        for day in OLD:
            world.change(f"build_id_nightly_50_{day:%Y%m%d}", Partition(AggregateType.BUILD_ID, day), day)
        world.launch(AggregateType.BUILD_ID, first, range_tags(OLD))
        yield world


@pytest.mark.stress
def test_left_on(world: World, receiver: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end BigQuery has what the source last held of every day, nothing was loaded without a reason, and each
    run that failed for good was told once.
    """
    for instance in world.instances:
        world.look_for_alarms(instance)
    source, shrunk = world.pipeline.source, f"submission_date_nightly_73_{START:%Y%m%d}"
    for n in range(DAYS):
        day = START + timedelta(days=n)
        instance = world.instances[n >= SECOND_INSTANCE]
        world.aggregate(day, n)
        if n == SHRINKS:
            source.execute(f"DELETE FROM {shrunk}".encode())
            source.execute(
                b"UPDATE table_update_dates SET submission_dates = submission_dates || '{again}' WHERE tablename = %s",
                [shrunk],
            )
        if n == TRIMMED:
            for old in OLD:
                source.execute(f"DROP TABLE build_id_nightly_50_{old:%Y%m%d}".encode())
        if n == CHANGES_DURING_A_RUN:
            partition = Partition(AggregateType.BUILD_ID, START)
            world.change(f"build_id_nightly_73_{START:%Y%m%d}", partition, day)
            table = f"build_id_esr_71_{START:%Y%m%d}"
            Timer(0.5, world.change, (table, partition, day)).start()
        with monkeypatch.context() as patch:
            if n in OUTAGE:
                patch.setenv("POSTGRES_HOST", "127.0.0.1")
                patch.setenv("POSTGRES_PORT", "1")
                patch.setenv("OUTAGE_PATIENCE_SECONDS", "0")
            world.schedule(day, instance)
            world.tick(instance)
            world.look_for_alarms(instance)
    world.schedule(START + timedelta(days=DAYS), world.instances[1])
    for _ in range(3):
        world.tick(world.instances[1])
    assert world.tick(world.instances[1]) == 0
    for instance in world.instances * 2:
        world.look_for_alarms(instance)
    told = alarms.texts(receiver)
    assert len(set(told)) == len(told)
    assert sum("has failed" in text for text in told) == world.failed_runs > 0
    check_exact(world)
    unfounded = {
        str(partition): (loads, world.changes[partition], world.failures[partition])
        for partition, loads in world.loads.items()
        if loads > world.changes[partition] + world.failures[partition]
    }
    assert unfounded == {}


def check_exact(world: World) -> None:
    """Every day but the trimmed ones, and the one that has shrunk, which is as it was before."""
    lake, warehouse = world.pipeline.lake, world.pipeline.warehouse
    held = Partition(AggregateType.SUBMISSION_DATE, START)
    everything = DayRange(START, START + timedelta(days=DAYS))
    for aggregate_type in AggregateType:
        report = reconcile(world.pipeline.source, lake, warehouse, aggregate_type, everything, count_source=True)
        differing = [day.day for day in report.days if day.differences]
        assert differing == ([held.day] if aggregate_type is held.aggregate_type else []), report.differences[:3]
    assert warehouse.count_partition(held).total == 6
    assert [warehouse.count_partition(Partition(AggregateType.BUILD_ID, day)).total for day in OLD] == [3, 3, 3]
