"""Days that the source has changed since they were loaded: a sensor that ingests them again, a check that names them.

Level-triggered: each tick compares the source with what is loaded, and remembers nothing that matters. What it has
launched it reads from the runs' tags.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    DagsterInstance,
    DailyPartitionsDefinition,
    DefaultSensorStatus,
    Failure,
    MetadataValue,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    TableColumn,
    TableRecord,
    TableSchema,
    asset_check,
    sensor,
)

from mozagg2bq_assets.defs.keys import UP_TO_DATE, job_name, source_key
from mozagg2bq_assets.defs.partitions import days_under_way, range_tags, shortened, stretches
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource
from mozagg2bq_assets.errors import Attempt, OperatorError
from mozagg2bq_assets.lake.cache import ManifestCache
from mozagg2bq_assets.lake.manifest import LoadManifest
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.lateness import Lateness, find_late

INTERVAL_SECONDS = 300
# What a run was launched for: its days, and a part of the source's fingerprint of each.
LATE_TAG = "mozagg2bq/late_data"
FINGERPRINT_CHARACTERS = 8
TRIES_AT_ONCE = 2
LISTED = 100

CACHE = ManifestCache()


def late_data_sensor(aggregate_type: AggregateType, daily: DailyPartitionsDefinition) -> SensorDefinition:
    """The sensor of a type. It is off until somebody turns it on."""

    @sensor(
        name=f"{aggregate_type}_late_data",
        job_name=job_name(aggregate_type),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.STOPPED,
        description="Ingests days again that the source has changed since they were loaded",
    )
    def late_data(
        context: SensorEvaluationContext, postgres: PostgresResource, lake: LakeResource
    ) -> SensorResult | SkipReason:
        try:
            loads = loaded(aggregate_type, lake)
            lateness = compare(aggregate_type, postgres, loads)
            under_way = days_under_way(context.instance, aggregate_type, daily, lateness.late)
            # A run may have loaded a day since `loads` was read. It is compared again at the next tick.
            under_way |= _loaded_since(loads, aggregate_type, lake) if lateness.late else set()
        except OperatorError as error:
            return SkipReason(f"source and lake cannot be compared now: {error}")
        tried = _tries(context.instance, aggregate_type)
        wanted = {
            day: fingerprint
            for day, fingerprint in lateness.late.items()
            if day not in under_way and _may_try(tried.get((day, short(fingerprint)), []))
        }
        requests = [_request(aggregate_type, days, wanted, tried) for days in stretches(wanted)]
        passed, description = _verdict(lateness)
        digest = sha256(repr((passed, description, sorted(lateness.late.items()))).encode()).hexdigest()
        evaluation = AssetCheckEvaluation(
            asset_key=source_key(aggregate_type), check_name=UP_TO_DATE, **_shown(lateness)
        )
        return SensorResult(
            run_requests=requests,
            skip_reason=None if requests else SkipReason(description),
            # Told when it changes: a row for each tick would fill the instance's storage.
            asset_events=[] if context.cursor == digest else [evaluation],
            cursor=digest,
        )

    return late_data


def up_to_date(aggregate_type: AggregateType) -> AssetChecksDefinition:
    """The check of a type's source tables: no loaded day is behind. The sensor reports it too."""

    @asset_check(
        asset=source_key(aggregate_type),
        name=UP_TO_DATE,
        description="No loaded day is behind the source: build dates grow for weeks, and tables come late",
    )
    def check(postgres: PostgresResource, lake: LakeResource) -> AssetCheckResult:
        try:
            lateness = compare(aggregate_type, postgres, loaded(aggregate_type, lake))
        except OperatorError as error:
            raise Failure(str(error)) from None
        return AssetCheckResult(**_shown(lateness))

    return check


def loaded(aggregate_type: AggregateType, lake: LakeResource) -> Mapping[date, Attempt[LoadManifest]]:
    """What is loaded of each day, or what is wrong with its manifest. Raises OperatorError."""
    return CACHE.manifests(lake.lake(), LoadManifest, aggregate_type)


def compare(
    aggregate_type: AggregateType, postgres: PostgresResource, loads: Mapping[date, Attempt[LoadManifest]]
) -> Lateness:
    """The source against what is loaded. Raises OperatorError."""
    with postgres.source().connect() as connection:
        return find_late(connection, aggregate_type, loads)


def _loaded_since(
    loads: Mapping[date, Attempt[LoadManifest]], aggregate_type: AggregateType, lake: LakeResource
) -> set[date]:
    """Days whose manifest has changed since `loads` was read."""
    return {day for day, load in loaded(aggregate_type, lake).items() if load is not loads.get(day)}


def _tries(instance: DagsterInstance, aggregate_type: AggregateType) -> Mapping[tuple[date, str], list[date]]:
    """For each day and fingerprint, the dates on which runs were launched for it in the last two days."""
    tries: dict[tuple[date, str], list[date]] = {}
    for record in instance.get_run_records(
        RunsFilter(job_name=job_name(aggregate_type), created_after=datetime.now(UTC) - timedelta(days=2))
    ):
        for day, fingerprint in json.loads(record.dagster_run.tags.get(LATE_TAG, "{}")).items():
            tries.setdefault((date.fromisoformat(day), fingerprint), []).append(record.create_timestamp.date())
    return tries


def _may_try(tried: list[date]) -> bool:
    """Once, once more, and then once a day, until the source changes."""
    return len(tried) < TRIES_AT_ONCE or datetime.now(UTC).date() not in tried


def _request(
    aggregate_type: AggregateType,
    days: DayRange,
    late: Mapping[date, str],
    tried: Mapping[tuple[date, str], list[date]],
) -> RunRequest:
    wanted = {str(day): short(late[day]) for day in days}
    tag = json.dumps(wanted)
    tries = sum(len(tried.get((day, wanted[str(day)]), [])) for day in days)
    key = sha256(f"{aggregate_type} {tag} {tries}".encode()).hexdigest()
    return RunRequest(run_key=key, tags={**range_tags(days), LATE_TAG: tag})


def short(fingerprint: str) -> str:
    """As much of a fingerprint as tags and keys need."""
    return fingerprint[:FINGERPRINT_CHARACTERS]


def _shown(lateness: Lateness) -> dict[str, Any]:
    """The check's verdict, as its own run and the sensor give it."""
    passed, description = _verdict(lateness)
    return {
        "passed": passed,
        "severity": AssetCheckSeverity.WARN,
        "description": description,
        "metadata": _metadata(lateness),
    }


def _verdict(lateness: Lateness) -> tuple[bool, str]:
    """Whether nothing is behind, and a line that says so."""
    parts = [
        f"{what}: {shortened([str(day) for day in days])}: {do}"
        for days, what, do in (
            (lateness.late, "behind the source", "turn the sensor for late data on, or materialize them"),
            (
                lateness.shrunk,
                "kept as loaded, as the source has lost tables of theirs",
                "run them with accept_shrink to take what the source has now",
            ),
            (lateness.unreadable, "with a manifest that cannot be read", "materialize bigquery_table of them"),
        )
        if days
    ]
    notes = list(_notes(lateness))
    return not parts, "; ".join([*(parts or ["no loaded day is behind the source"]), *notes])


def _notes(lateness: Lateness) -> Iterator[str]:
    if lateness.trimmed:
        yield f"{lateness.trimmed} days were trimmed since"
    if lateness.unknown:
        yield f"{len(lateness.unknown)} were loaded before fingerprints were kept: ingest them again"
    if not lateness.recorded:
        yield "the source has no table_update_dates, so names are compared, and the rows of the last weeks"


def _metadata(lateness: Lateness) -> dict[str, MetadataValue]:
    days = {
        **dict.fromkeys(lateness.late, "behind"),
        **{day: f"lost {', '.join(tables[:3])}" for day, tables in lateness.shrunk.items()},
        **{day: str(error) for day, error in lateness.unreadable.items()},
    }
    records = [TableRecord({"day": str(day), "why": why}) for day, why in sorted(days.items())[:LISTED]]
    return {"days": MetadataValue.table(records, TableSchema([TableColumn("day"), TableColumn("why")]))}
