"""Compare source, lake and BigQuery with each other, day by day, and say what differs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import psycopg

from mozagg2bq_assets.errors import Attempt, OperatorError, one_line, some
from mozagg2bq_assets.lake.manifest import DumpManifest, LoadManifest, ParquetManifest, StageManifest, without_remedy
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.model.partitions import DayRange, Stage, ds_nodash, then
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.pipeline.content import ContentCheck
from mozagg2bq_assets.postgres.tables import count_table, list_names

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse


# Manifests of so many days are in memory: each names a day's tables.
DAYS_AT_ONCE = 100
# The source's rows of these days are counted even where there is a dump: earlier days seldom change, and counting reads
# whole tables.
RECENT_DAYS = 7


@dataclass(frozen=True)
class Difference:
    """What differs on a day: its `kind`, which other days may share, and if there is more to say, the day's `details`.

    The remedy is to materialize `stage`, and then the stages after it.
    """

    stage: Stage
    kind: str
    details: str = ""

    def __str__(self) -> str:
        return self.details or self.kind


@dataclass
class DayReport:
    """A day: its tables in the source, its rows by stage (None: not counted, or no readable version), what differs.

    `dropped` is the number of tables that the dump has and the source has not any more.
    """

    day: date
    source_tables: int
    source_rows: int | None
    dump_rows: int | None
    parquet_rows: int | None
    bigquery_rows: int
    dropped: int = 0
    differences: list[Difference] = field(default_factory=list)


@dataclass
class Report:
    """All days of one type; `names` lists tables that belong to no day: out of range, or named otherwise."""

    aggregate_type: AggregateType
    days: list[DayReport] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def differing(self) -> list[DayReport]:
        """The days on which something differs."""
        return [day for day in self.days if day.differences]

    @property
    def differences(self) -> list[str]:
        """Everything that differs, a line each."""
        return [
            f"{self.aggregate_type} {ds_nodash(day.day)}: {difference}"
            for day in self.days
            for difference in day.differences
        ]

    @property
    def grouped(self) -> list[str]:
        """The same, a line for each kind of difference: its days, and the remedy."""
        kinds: dict[tuple[Stage, str], list[tuple[date, Difference]]] = {}
        for day in self.days:
            for difference in day.differences:
                kinds.setdefault((difference.stage, difference.kind), []).append((day.day, difference))
        return [
            f"{_days([day for day, _ in found])}: {kind if len(found) > 1 else found[0][1]}: materialize"
            f" {self.aggregate_type}/{stage}{then(stage)}"
            for (stage, kind), found in kinds.items()
        ]

    @property
    def notes(self) -> list[str]:
        """What is no difference: tables that the source has dropped, and those that belong to no day."""
        dropped = [day.day for day in self.days if day.dropped]
        gone = [f"{_days(dropped)}: tables are no longer in the source; the lake keeps their rows"] if dropped else []
        return [*gone, *self.names]


def reconcile(
    connection: psycopg.Connection | None,
    lake: Lake,
    warehouse: "Warehouse",
    aggregate_type: AggregateType,
    wanted: DayRange,
    count_source: bool = False,
    content: ContentCheck | None = None,
    compared: Callable[[date], None] = lambda _: None,
) -> Report:
    """Compare every day in range. Raises TransientError where one of the three is away, UserError where it refuses.

    With `count_source` the report lists every day of the range, and counts the source's rows. Without it, the report
    lists only days of which something is known, and counts the source's rows only for recent days and for days without
    a dump. With `content` what the rows hold is compared too. Without a connection, lake and BigQuery are compared.
    `compared` is told each day that is done.
    """
    report = Report(aggregate_type)
    tables: dict[date, list[str]] = {}
    for name in list_names(connection, aggregate_type) if connection else ():
        table = SourceTable.parse(name)
        if table is None:
            report.names.append(f"{one_line(name)}: not the name of an aggregate table")
        elif table.day in wanted:
            tables.setdefault(table.day, []).append(name)
        elif not count_source:
            report.names.append(f"{name}: outside the partitions, which begin at {wanted.start} and end with yesterday")
    objects = {stage: lake.objects(stage, aggregate_type) for stage in Stage}
    loaded = warehouse.count_days(aggregate_type, wanted)
    recent = datetime.now(UTC).date() - timedelta(days=RECENT_DAYS)
    for part in wanted.parts(DAYS_AT_ONCE):
        dumps, parquets, loads = (
            lake.manifests(DumpManifest, aggregate_type, objects[Stage.RAW_DUMP], part),
            lake.manifests(ParquetManifest, aggregate_type, objects[Stage.PARQUET], part),
            lake.manifests(LoadManifest, aggregate_type, objects[Stage.BIGQUERY_TABLE], part),
        )
        for day in part:
            if count_source or day in tables.keys() | dumps.keys() | parquets.keys() | loaded.keys():
                dump, parquet, source = dumps.get(day), parquets.get(day), None
                if connection:
                    counted = count_source or dump is None or day >= recent
                    source = _source_rows(connection, tables.get(day, ()), counted)
                found = _compare(day, source, dump, parquet, objects, loaded.get(day, 0))
                found.differences += _parquet_to_bigquery(parquet, loads.get(day), found.bigquery_rows)
                if content and isinstance(parquet, ParquetManifest):
                    known = dump if isinstance(dump, DumpManifest) else None
                    lines = content.differences(tables.get(day, ()), known, parquet)
                    found.differences += [Difference(Stage.RAW_DUMP, "the rows' values differ", line) for line in lines]
                report.days.append(found)
            compared(day)
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
    source: Mapping[str, int | None] | None,
    dump: Attempt[DumpManifest] | None,
    parquet: Attempt[ParquetManifest] | None,
    objects: Mapping[Stage, Mapping[str, int]],
    bigquery_rows: int,
) -> DayReport:
    tables = source or {}
    counts = [rows for rows in tables.values() if rows is not None]
    report = DayReport(
        day,
        source_tables=len(tables),
        source_rows=sum(counts) if source is not None and len(counts) == len(source) else None,
        dump_rows=dump.rows.total if isinstance(dump, DumpManifest) else None,
        parquet_rows=parquet.rows.total if isinstance(parquet, ParquetManifest) else None,
        bigquery_rows=bigquery_rows,
    )
    for manifest, stage in ((dump, Stage.RAW_DUMP), (parquet, Stage.PARQUET)):
        if isinstance(manifest, OperatorError):
            report.differences.append(_damaged(manifest, stage))
        elif manifest is not None:
            report.differences += _missing_objects(manifest, objects[stage])
    if source is not None and not isinstance(dump, OperatorError):
        report.dropped = len(dump.rows.keys() - source.keys()) if dump else 0
        report.differences += _source_to_dump(source, dump)
    report.differences += _dump_to_parquet(dump, parquet)
    return report


def _damaged(error: OperatorError, stage: Stage) -> Difference:
    return Difference(stage, f"the manifest of its {stage} cannot be read", without_remedy(error))


def _missing_objects(manifest: StageManifest, objects: Mapping[str, int]) -> Iterator[Difference]:
    bad = []
    for file in manifest.files:
        key = f"{manifest.partition.ds_nodash}/{manifest.version}/{file.name}"
        where = f"{manifest.of}/{manifest.aggregate_type}/{key}"
        if key not in objects:
            bad.append(f"{where} is missing from the lake")
        elif objects[key] != file.size:
            bad.append(f"{where} has {objects[key]} bytes, its {MANIFEST} says {file.size}")
    if bad:
        yield Difference(manifest.of, f"files of its {manifest.of} are missing or damaged", some(bad))


def _source_to_dump(source: Mapping[str, int | None], dump: DumpManifest | None) -> Iterator[Difference]:
    if dump is None:
        if any(rows != 0 for rows in source.values()):
            what = "in the source, and never ingested"
            yield Difference(Stage.RAW_DUMP, what, f"{len(source)} tables are {what}: {some(list(source))}")
        return
    lines = []
    for name, rows in source.items():
        if rows is None and name not in dump.rows:
            lines.append(f"table {name} is in the source, not in the dump")
        elif rows is not None and rows != dump.rows.get(name, 0):
            lines.append(f"table {name} has {rows} rows in the source, {dump.rows.get(name, 0)} in the dump")
    if lines:
        yield Difference(Stage.RAW_DUMP, "the source has changed since the dump", some(lines))


def _dump_to_parquet(
    dump: Attempt[DumpManifest] | None, parquet: Attempt[ParquetManifest] | None
) -> Iterator[Difference]:
    if dump is None and isinstance(parquet, ParquetManifest):
        yield Difference(Stage.RAW_DUMP, "the lake has Parquet, and no dump that it was made from")
    if not isinstance(dump, DumpManifest):
        return
    if parquet is None:
        yield Difference(Stage.PARQUET, "the dump has not been turned into Parquet")
    elif isinstance(parquet, ParquetManifest):
        if parquet.details.raw_dump != dump.version:
            yield Difference(Stage.PARQUET, "the Parquet file was made from an earlier dump")
        if parquet.rows.total != dump.rows.total:
            yield Difference(
                Stage.PARQUET,
                "Parquet and dump have different numbers of rows",
                f"{parquet.rows.total} rows in the Parquet file, {dump.rows.total} in the dump",
            )


def _parquet_to_bigquery(
    parquet: Attempt[ParquetManifest] | None, load: Attempt[LoadManifest] | None, bigquery_rows: int
) -> Iterator[Difference]:
    """Compare the numbers of rows; where they agree, whether the loaded rows came from the current Parquet file."""
    stage = Stage.BIGQUERY_TABLE
    file = parquet if isinstance(parquet, ParquetManifest) else None
    file_rows = file.rows.total if file else 0
    if isinstance(load, OperatorError):
        yield _damaged(load, stage)
    if bigquery_rows != file_rows:
        yield Difference(
            stage,
            "BigQuery and Parquet have different numbers of rows",
            f"{bigquery_rows} rows in BigQuery, {file_rows} in the Parquet file",
        )
    elif file and load is None:
        yield Difference(stage, "nothing in the lake says which Parquet file BigQuery's rows are of")
    elif file and isinstance(load, LoadManifest) and load.details.parquet != file.version:
        yield Difference(stage, "BigQuery has the rows of an earlier Parquet file")


def _days(days: Sequence[date]) -> str:
    """A day, or how many there are and which are the first and the last."""
    return str(days[0]) if len(days) == 1 else f"{len(days)} days, {days[0]} to {days[-1]}"
