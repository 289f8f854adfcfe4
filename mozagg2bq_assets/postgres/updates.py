"""The aggregator's own record of updates, `table_update_dates`: which submission dates it has merged into each table.

It merges and records in one transaction, so what a snapshot says of both agrees. The trimming job drops tables and
leaves their records. Where there is no such table, only the tables' names are compared.
"""

from collections.abc import Iterable
from datetime import date

import psycopg

from mozagg2bq_assets.model.partitions import Partition, days_by_type, parse_ds_nodash
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.model.updates import SourceState

# Every table that is there or recorded: its name, its day, a hash of what was merged into it, and whether it is there.
_TABLES = r"""
WITH present AS (
    SELECT relname::text COLLATE "C" AS name FROM pg_catalog.pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT relispartition
        AND starts_with(relname, %(prefix)s) AND relname ~ %(pattern)s
), recorded AS ({recorded}), tables AS (
    SELECT coalesce(present.name, recorded.name) AS name, coalesce(recorded.merged, '') AS merged,
        present.name IS NOT NULL AS is_there
    FROM present FULL JOIN recorded ON present.name = recorded.name
), days AS (SELECT substring(name FROM '_(\d{{8}})\d*$') AS day, * FROM tables)
"""
_RECORDED = """
SELECT tablename COLLATE "C" AS name, md5(array_to_string(submission_dates, ',', '')) AS merged
FROM public.table_update_dates WHERE starts_with(tablename, %(prefix)s) AND tablename ~ %(pattern)s
"""
_NOT_RECORDED = """SELECT NULL::text COLLATE "C" AS name, NULL::text AS merged WHERE false"""
_FINGERPRINT = "md5(string_agg(name || ':' || merged, ',' ORDER BY name))"


def has_update_dates(connection: psycopg.Connection) -> bool:
    """Whether the source records its updates."""
    row = connection.execute("SELECT to_regclass('public.table_update_dates') IS NOT NULL").fetchone()
    return row == (True,)


def fingerprints(connection: psycopg.Connection, aggregate_type: AggregateType) -> dict[date, str]:
    """The fingerprint of every day of a type that has tables, or records of some, from one query."""
    query = f"{_tables(connection)} SELECT day, {_FINGERPRINT} FROM days WHERE day IS NOT NULL GROUP BY day"
    rows = connection.execute(query.encode(), {"prefix": f"{aggregate_type}_", "pattern": ""}).fetchall()
    return {day: fingerprint for text, fingerprint in rows if (day := parse_ds_nodash(text)) is not None}


def source_states(connection: psycopg.Connection, partitions: Iterable[Partition]) -> dict[Partition, SourceState]:
    """The states of partitions; one without tables and records is left out."""
    query = f"""
        {_tables(connection)} SELECT day, {_FINGERPRINT},
            jsonb_object_agg(name, merged) FILTER (WHERE is_there),
            jsonb_object_agg(name, merged) FILTER (WHERE NOT is_there)
        FROM days GROUP BY day
    """
    states = {}
    for aggregate_type, days in days_by_type(partitions).items():
        parameters = {"prefix": f"{aggregate_type}_", "pattern": f"_({'|'.join(days)})[0-9]*$"}
        for text, fingerprint, tables, dropped in connection.execute(query.encode(), parameters).fetchall():
            if (day := parse_ds_nodash(text)) is not None:
                states[Partition(aggregate_type, day)] = SourceState(fingerprint, tables or {}, dropped or {})
    return states


def _tables(connection: psycopg.Connection) -> str:
    return _TABLES.format(recorded=_RECORDED if has_update_dates(connection) else _NOT_RECORDED)
