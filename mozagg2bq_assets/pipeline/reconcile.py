"""Compare source, lake and BigQuery with each other, day by day, and say what differs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import psycopg

from mozagg2bq_assets.errors import Attempt, OperatorError, one_line
from mozagg2bq_assets.lake.manifest import DumpManifest, LoadManifest, ParquetManifest, StageManifest
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.model.partitions import DayRange, Stage, ds_nodash
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.pipeline.content import ContentCheck
from mozagg2bq_assets.postgres.tables import count_table, list_names

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse


# Manifests of so many days are in memory: each names a day's tables.
DAYS_AT_ONCE = 100
_RELOAD = "materialize bigquery_table of this day"


@dataclass
class DayReport:
    """A day: its tables in the source, its rows by stage (None: not counted, or no readable version), what differs."""

    day: date
    source_tables: int
    source_rows: int | None
    dump_rows: int | None
    parquet_rows: int | None
    bigquery_rows: int
    differences: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All days of one type; `notes` lists what belongs to no day: tables out of range, other names."""

    aggregate_type: AggregateType
    days: list[DayReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def differences(self) -> list[str]:
        """Everything that differs, a line each."""
        return [f"{self.aggregate_type} {ds_nodash(day.day)}: {line}" for day in self.days for line in day.differences]


def reconcile(
    connection: psycopg.Connection,
    lake: Lake,
    warehouse: "Warehouse",
    aggregate_type: AggregateType,
    wanted: DayRange,
    count_source: bool = False,
    content: ContentCheck | None = None,
) -> Report:
    """Compare every day in range. Raises TransientError where one of the three is away, UserError where it refuses.

    With `count_source` the report lists every day of the range, and counts the source's rows. Without it, the report
    lists only days of which something is known, and counts the source's rows only for days without a dump. With
    `content` what the rows hold is compared too.
    """
    report = Report(aggregate_type)
    tables: dict[date, list[str]] = {}
    for name in list_names(connection, aggregate_type):
        table = SourceTable.parse(name)
        if table is None:
            report.notes.append(f"{one_line(name)}: not the name of an aggregate table")
        elif table.day in wanted:
            tables.setdefault(table.day, []).append(name)
        elif not count_source:
            report.notes.append(f"{name}: outside the partitions, which begin at {wanted.start} and end with yesterday")
    objects = {stage: lake.objects(stage, aggregate_type) for stage in Stage}
    loaded = warehouse.count_days(aggregate_type, wanted)
    for part in wanted.parts(DAYS_AT_ONCE):
        dumps, parquets, loads = (
            lake.manifests(DumpManifest, aggregate_type, objects[Stage.RAW_DUMP], part),
            lake.manifests(ParquetManifest, aggregate_type, objects[Stage.PARQUET], part),
            lake.manifests(LoadManifest, aggregate_type, objects[Stage.BIGQUERY_TABLE], part),
        )
        for day in part:
            if count_source or day in tables.keys() | dumps.keys() | parquets.keys() | loaded.keys():
                dump, parquet = dumps.get(day), parquets.get(day)
                source = _source_rows(connection, tables.get(day, ()), count_source or dump is None)
                found = _compare(day, source, dump, parquet, objects, loaded.get(day, 0))
                found.differences += _parquet_to_bigquery(parquet, loads.get(day), found.bigquery_rows)
                if content and isinstance(parquet, ParquetManifest):
                    known = dump if isinstance(dump, DumpManifest) else None
                    found.differences += content.differences(tables.get(day, ()), known, parquet)
                report.days.append(found)
    return report


def _source_rows(connection: psycopg.Connection, names: Iterable[str], counted: bool) -> dict[str, int | None]:
    """Rows of each table, a transaction each, so that locks do not pile up; None where only names matter."""
    rows: dict[str, int | None] = {}
    for name in names:
        rows[name] = count_table(connection, name) if counted else None
        connection.commit()
    return rows


def _compare(
    day: date,
    source: Mapping[str, int | None],
    dump: Attempt[DumpManifest] | None,
    parquet: Attempt[ParquetManifest] | None,
    objects: Mapping[Stage, Mapping[str, int]],
    bigquery_rows: int,
) -> DayReport:
    counts = [rows for rows in source.values() if rows is not None]
    report = DayReport(
        day,
        source_tables=len(source),
        source_rows=sum(counts) if len(counts) == len(source) else None,
        dump_rows=dump.rows.total if isinstance(dump, DumpManifest) else None,
        parquet_rows=parquet.rows.total if isinstance(parquet, ParquetManifest) else None,
        bigquery_rows=bigquery_rows,
    )
    for manifest, stage in ((dump, Stage.RAW_DUMP), (parquet, Stage.PARQUET)):
        if isinstance(manifest, OperatorError):
            report.differences.append(str(manifest))
        elif manifest is not None:
            report.differences += _missing_objects(manifest, objects[stage])
    report.differences += _source_to_dump(source, dump)
    report.differences += _dump_to_parquet(dump, parquet)
    return report


def _missing_objects(manifest: StageManifest, objects: Mapping[str, int]) -> Iterator[str]:
    for file in manifest.files:
        key = f"{manifest.partition.ds_nodash}/{manifest.version}/{file.name}"
        if key not in objects:
            yield f"{manifest.of}/{key} is missing from the lake"
        elif objects[key] != file.size:
            yield f"{manifest.of}/{key} has {objects[key]} bytes, its {MANIFEST} says {file.size}"


def _source_to_dump(source: Mapping[str, int | None], dump: Attempt[DumpManifest] | None) -> Iterator[str]:
    if isinstance(dump, OperatorError):
        return
    dumped = dump.rows if dump else {}
    for name, rows in source.items():
        if rows is None and name not in dumped:
            yield f"table {name} is in the source, not in the dump"
        elif rows is not None and rows != dumped.get(name, 0):
            yield f"table {name} has {rows} rows in the source, {dumped.get(name, 0)} in the dump"


def _dump_to_parquet(dump: Attempt[DumpManifest] | None, parquet: Attempt[ParquetManifest] | None) -> Iterator[str]:
    if dump is None and isinstance(parquet, ParquetManifest):
        yield "the lake has Parquet, and no dump that it was made from"
    if not isinstance(dump, DumpManifest):
        return
    if parquet is None:
        yield "the dump has not been turned into Parquet"
    elif isinstance(parquet, ParquetManifest):
        if parquet.details.raw_dump != dump.version:
            yield "the Parquet file was made from an earlier dump"
        if parquet.rows.total != dump.rows.total:
            yield f"{parquet.rows.total} rows in the Parquet file, {dump.rows.total} in the dump"


def _parquet_to_bigquery(
    parquet: Attempt[ParquetManifest] | None, load: Attempt[LoadManifest] | None, bigquery_rows: int
) -> Iterator[str]:
    """Rows, and where their number agrees, whether they are of that very file: two may have equally many."""
    file = parquet if isinstance(parquet, ParquetManifest) else None
    file_rows = file.rows.total if file else 0
    if isinstance(load, OperatorError):
        yield str(load)
    if bigquery_rows != file_rows:
        yield f"{bigquery_rows} rows in BigQuery, {file_rows} in the Parquet file"
    elif file and load is None:
        yield f"nothing in the lake says which Parquet file BigQuery's rows are of: {_RELOAD}"
    elif file and isinstance(load, LoadManifest) and load.details.parquet != file.version:
        yield f"BigQuery has the rows of an earlier Parquet file: {_RELOAD}"
