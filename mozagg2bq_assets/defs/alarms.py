"""Alarms: what needs a person, told once for each cause, to a webhook.

The sensor looks at what has failed since it looked last, and at how things are. A cause that could not be told, as the
webhook was away, is told at a later tick.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import requests
from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from mozagg2bq_assets.defs.keys import RECONCILIATION
from mozagg2bq_assets.defs.late_data import compare, loaded, short
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource
from mozagg2bq_assets.errors import OperatorError, TransientError, UserError, brief
from mozagg2bq_assets.lake.manifest import LoadManifest
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.tags import ONE_PARTITION, RANGE_START, WILL_RETRY
from mozagg2bq_assets.settings import AlarmSettings

INTERVAL_SECONDS = 300
WEBHOOK_SECONDS = 10
# Hours after which a day that is still behind, and a type that has loaded nothing, are worth an alarm.
LATE_HOURS = 24
SILENT_HOURS = 36
REMEMBERED_DAYS = 60
CAUSE_CHARACTERS = 600


class Alarm(NamedTuple):
    """A cause by its key, what is said of it, what to do, and the page that shows it."""

    key: str
    text: str
    remedy: str
    page: str


@dataclass
class Memory:
    """What the cursor keeps: when runs were looked at last, when causes were told, since when days are late."""

    looked_at: str
    told: dict[str, str] = field(default_factory=dict)
    late_since: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None) -> "Memory":
        """Where the cursor is lost, start empty: runs are looked at from now on."""
        return cls(**json.loads(cursor)) if cursor else cls(_text(datetime.now(UTC)))

    def write(self) -> str:
        """As a cursor, without what was told long ago."""
        oldest = _text(datetime.now(UTC) - timedelta(days=REMEMBERED_DAYS))
        self.told = {key: at for key, at in self.told.items() if at > oldest}
        return json.dumps(vars(self))


def alarms_sensor() -> SensorDefinition:
    """The sensor. It is off until somebody turns it on."""

    @sensor(
        name="alarms",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.STOPPED,
        description="Posts to ALERT_WEBHOOK_URL what needs a person, once for each cause",
    )
    def alarms(context: SensorEvaluationContext, postgres: PostgresResource, lake: LakeResource) -> SkipReason:
        settings = AlarmSettings.read()
        if settings.webhook_url is None:
            return SkipReason("ALERT_WEBHOOK_URL is not set, so nobody is told of anything")
        memory, now = Memory.read(context.cursor), datetime.now(UTC)
        found = [*_failed_runs(context.instance, memory), *_states(postgres, lake, memory)]
        told, error = 0, None
        for alarm in found:
            if alarm.key not in memory.told and error is None:
                try:
                    _post(settings.webhook_url.get_secret_value(), alarm, settings.dagster_url)
                except OperatorError as problem:
                    error = problem
                else:
                    memory.told[alarm.key] = _text(now)
                    told += 1
        if error is None:
            memory.looked_at = _text(now)
        context.update_cursor(memory.write())
        return SkipReason(str(error) if error else f"{told} alarms told, {len(found) - told} known already")

    return alarms


def _failed_runs(instance: DagsterInstance, memory: Memory) -> Iterator[Alarm]:
    """Runs that have failed for good, and reconciliations that have found something."""
    since = datetime.fromisoformat(memory.looked_at)
    statuses = [DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS]
    for record in instance.get_run_records(RunsFilter(statuses=statuses, updated_after=since)):
        run = record.dagster_run
        page = f"/runs/{run.run_id}"
        if run.status is DagsterRunStatus.FAILURE:
            if run.tags.get(WILL_RETRY) != "true":
                days = run.tags.get(RANGE_START) or run.tags.get(ONE_PARTITION) or ""
                remedy = "see the run, mend the cause, and re-execute it from failure"
                yield Alarm(
                    f"run {run.run_id}",
                    f"{run.job_name} {days} has failed: {_cause(instance, run.run_id)}",
                    remedy,
                    page,
                )
        else:
            yield from _reconciliations(instance, run.run_id, page)


def _cause(instance: DagsterInstance, run_id: str) -> str:
    """The step's failure in one line, cut; Dagster's message about the run if no step has failed."""
    for kind in (DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE):
        for entry in instance.all_logs(run_id, of_type=kind):
            event = entry.dagster_event
            if event is None:
                continue
            data = event.step_failure_data if event.is_step_failure else None
            said = data.user_failure_data.description if data and data.user_failure_data else event.message
            return brief(said or "no reason given", CAUSE_CHARACTERS)
    return "no reason given"


def _reconciliations(instance: DagsterInstance, run_id: str, page: str) -> Iterator[Alarm]:
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION):
        event = entry.dagster_event
        evaluation: Any = event.event_specific_data if event else None
        if evaluation and evaluation.check_name == RECONCILIATION and not evaluation.passed:
            said = brief(evaluation.description or "", CAUSE_CHARACTERS)
            digest = sha256(said.encode()).hexdigest()[:16]
            where = evaluation.asset_key.path[0]
            remedy = "see the check on source_tables; materialize the days that it names"
            yield Alarm(f"{RECONCILIATION} {where} {digest}", f"{where} does not agree: {said}", remedy, page)


def _states(postgres: PostgresResource, lake: LakeResource, memory: Memory) -> Iterator[Alarm]:
    """Days that stay behind, days that have lost tables, and types that load nothing.

    What cannot be compared now is compared at a later tick.
    """
    now, still_late = datetime.now(UTC), dict[str, str]()
    for aggregate_type in AggregateType:
        page = f"/assets/{aggregate_type}/source_tables?view=checks"
        try:
            loads = loaded(aggregate_type, lake)
            lateness = compare(aggregate_type, postgres, loads)
        except OperatorError:
            still_late |= {key: at for key, at in memory.late_since.items() if key.startswith(f"{aggregate_type} ")}
            continue
        for day, fingerprint in lateness.late.items():
            key = f"{aggregate_type} {day} {short(fingerprint)}"
            still_late[key] = memory.late_since.get(key, _text(now))
            if now - datetime.fromisoformat(still_late[key]) > timedelta(hours=LATE_HOURS):
                text = f"{day} of {aggregate_type} has been behind the source for more than {LATE_HOURS} hours"
                yield Alarm(f"late {key}", text, "turn the sensor for late data on, or see why its runs fail", page)
        for day, tables in lateness.shrunk.items():
            text = f"{day} of {aggregate_type} has lost {len(tables)} tables in the source, among them {tables[0]}"
            remedy = "the day stays as loaded; run it with accept_shrink to take what the source has now"
            yield Alarm(f"shrunk {aggregate_type} {day} {','.join(tables)}", text, remedy, page)
        yield from _silent(aggregate_type, loads, now)
    memory.late_since = still_late


def _silent(aggregate_type: AggregateType, loads: Mapping[Any, Any], now: datetime) -> Iterator[Alarm]:
    newest = max((load.committed_at for load in loads.values() if isinstance(load, LoadManifest)), default=None)
    if newest is not None and now - newest > timedelta(hours=SILENT_HOURS):
        text = f"{aggregate_type} has loaded nothing since {newest:%Y-%m-%d %H:%M} UTC"
        remedy = "see whether its schedule is on, and why its runs fail"
        yield Alarm(
            f"silent {aggregate_type} {_text(newest)}", text, remedy, f"/assets/{aggregate_type}/bigquery_table"
        )


def _post(webhook_url: str, alarm: Alarm, dagster_url: str) -> None:
    """Raises TransientError or UserError, without the webhook's URL, which is a secret."""
    text = f"{alarm.text}\nWhat to do: {alarm.remedy}\n{dagster_url.rstrip('/')}{alarm.page}"
    try:
        answer = requests.post(webhook_url, json={"text": text}, timeout=WEBHOOK_SECONDS)
    except requests.RequestException as error:
        raise TransientError(f"the webhook cannot be reached ({type(error).__name__}): it is tried again") from None
    if not answer.ok:
        raise UserError(f"the webhook answers {answer.status_code}: check ALERT_WEBHOOK_URL; it is tried again")


def _text(moment: datetime) -> str:
    return moment.isoformat()
