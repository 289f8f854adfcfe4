"""Compare the source with what is loaded, by the aggregator's own record of updates: which days are behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import psycopg

from mozagg2bq_assets.errors import Attempt, OperatorError
from mozagg2bq_assets.lake.manifest import LoadManifest
from mozagg2bq_assets.model.counts import TableCounts
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.updates import SourceState
from mozagg2bq_assets.postgres.tables import count_table
from mozagg2bq_assets.postgres.updates import fingerprints, has_update_dates, source_states

# Without records of updates, rows are counted of the days that may still change: build dates grow for two weeks.
COUNTED_DAYS = 21


@dataclass
class Lateness:
    """A type's days, as far as they were loaded: all others have nothing to be compared with.

    `late` has the days whose source has changed, with the current fingerprint, or with the row count if the source does
    not record updates and only the rows show the change. `shrunk` has, by day, the tables that are gone and that nobody
    has trimmed; `trimmed` is the number of trimmed days. `unknown` were loaded by a release of this project (0.1.0)
    that kept no fingerprint, and `unreadable` have a damaged manifest. `recorded` says whether the source records
    updates.
    """

    recorded: bool
    late: dict[date, str] = field(default_factory=dict)
    shrunk: dict[date, list[str]] = field(default_factory=dict)
    unreadable: dict[date, OperatorError] = field(default_factory=dict)
    unknown: list[date] = field(default_factory=list)
    trimmed: int = 0


def find_late(
    connection: psycopg.Connection, aggregate_type: AggregateType, loads: Mapping[date, Attempt[LoadManifest]]
) -> Lateness:
    """Compare every loaded day. The number of queries grows with the days only where updates are not recorded."""
    lateness = Lateness(has_update_dates(connection))
    now = fingerprints(connection, aggregate_type)
    same, differing = list[LoadManifest](), list[tuple[LoadManifest, SourceState]]()
    for day, load in sorted(loads.items()):
        if isinstance(load, OperatorError):
            lateness.unreadable[day] = load
        elif load.details.source is None:
            lateness.unknown.append(day)
        elif load.details.source.fingerprint != now.get(day):
            differing.append((load, load.details.source))
        else:
            same.append(load)
    _sort_out(connection, differing, lateness)
    if not lateness.recorded:
        _count_recent(connection, same, lateness)
    return lateness


def _sort_out(
    connection: psycopg.Connection, differing: list[tuple[LoadManifest, SourceState]], lateness: Lateness
) -> None:
    """Distinguish days that have grown, were trimmed or shrank. Without records, missing tables count as trimmed."""
    states = source_states(connection, [load.partition for load, _ in differing])
    for load, before in differing:
        state = states.get(load.partition, SourceState(""))  # of a day of which nothing is there, nor recorded
        lost = state.lost_since(before)
        if state.trimmed_since(before) or (lost and not lateness.recorded):
            lateness.trimmed += 1
        elif lost:
            lateness.shrunk[load.day] = lost
        elif state.changed_since(before):
            lateness.late[load.day] = state.fingerprint


def _count_recent(connection: psycopg.Connection, loads: list[LoadManifest], lateness: Lateness) -> None:
    """Count recent days, whose tables are all there."""
    today = datetime.now(UTC).date()
    recent = DayRange(today - timedelta(days=COUNTED_DAYS), today)
    for load in loads:
        if load.day in recent and load.details.source is not None:
            counts = TableCounts()
            for name in load.details.source.tables:
                counts[name] = count_table(connection, name)
                connection.commit()
            if counts.by_channel() != load.rows:
                lateness.late[load.day] = f"{counts.total} rows"
