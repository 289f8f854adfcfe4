"""The three stages of a day, from source to lake to BigQuery: each commits its output or leaves all as it was.

Plain functions that know no orchestrator. What a stage did is an `Outcome`; a day that fails raises UserError or
DataError (CountMismatch where two counts differ).
"""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import duckdb

from mozagg2bq_assets.errors import DataError, UserError, check_counts
from mozagg2bq_assets.lake.manifest import Manifest, Run, Stage, describe
from mozagg2bq_assets.lake.store import Lake, new_version
from mozagg2bq_assets.pgdump.archive import DayArchive, open_day
from mozagg2bq_assets.pgdump.dump import DumpResult, checked
from mozagg2bq_assets.schema import AggregateType, ds_nodash
from mozagg2bq_assets.transform.exact import UnmappedKeys
from mozagg2bq_assets.transform.kernel import PARQUET_FILE, count_rows, write_parquet
from mozagg2bq_assets.warehouse.bigquery import Warehouse

PREVIEW_ROWS = 5

# While one day is converted, with all cores and all the memory that takes, others go to S3 or BigQuery.
DAYS_AT_ONCE = 3
_conversion = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What a stage did with a day.

    `rows` counts by source table (raw_dump) or by `channel version`. `location` is an
    object URI or a BigQuery partition; `size` is in bytes. `warning` tells the operator in a line what is unusual.
    """

    rows: Mapping[str, int] = field(default_factory=dict)
    location: str | None = None
    size: int = 0
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    preview: Sequence[Mapping[str, Any]] = ()
    warning: str | None = None

    @property
    def total_rows(self) -> int:
        """Rows of the day."""
        return sum(self.rows.values())


@dataclass
class Day:
    """One day of one type on its way, in a run: where it comes from, goes to, and is worked on meanwhile.

    `is_running` says of a run id whether that run still goes on. `workspace` is a folder of the day's own: a stage
    leaves its output there, so that the next need not fetch it; `close` removes it.
    """

    aggregate_type: AggregateType
    day: date
    run: Run
    attempt: int
    lake: Lake
    is_running: Callable[[str], bool]
    workspace: Path
    _archive: DayArchive | None = None
    _local_parquet: Path | None = None

    def __str__(self) -> str:
        return f"{self.aggregate_type} {ds_nodash(self.day)}"

    def close(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        if self._archive is not None:
            shutil.rmtree(self._archive.directory, ignore_errors=True)

    def store_dump(self, result: DumpResult | None) -> Outcome:
        """Check a day's dump against the source and commit it; a day without source rows changes nothing."""
        started = time.monotonic()
        if result is None and (done := self.resumed(Stage.RAW_DUMP)):
            return self._outcome(done, 0.0)
        dump = None if result is None else checked(result)
        if dump is None or dump.archive.rows == 0:
            return self._nothing(Stage.RAW_DUMP, "the source has no rows of this day")
        details = {
            "snapshot": dump.snapshot,
            "taken_at": dump.taken_at.isoformat(),
            "snapshot_held_seconds": round(dump.held_seconds, 3),
            "rows_in_snapshot": dump.source_rows,
            "pg_dump": _version_of("pg_dump"),
        }
        manifest = self._commit(
            Stage.RAW_DUMP, dump.archive.paths, dump.archive.rows_by_table, dump.taken_at.date(), details
        )
        self._archive = dump.archive
        return self._outcome(manifest, dump.seconds + time.monotonic() - started)

    def convert(self) -> Outcome:
        """Turn the committed dump into Parquet and commit that."""
        started = time.monotonic()
        source = self.lake.read_manifest(Stage.RAW_DUMP, self.aggregate_type, self.day)
        if source is None:
            return self._nothing(Stage.PARQUET, "the lake has no dump of this day")
        if (done := self.resumed(Stage.PARQUET)) and done.details["raw_dump"] == source.version:
            return self._outcome(done, 0.0)
        archive = self._archive or self._fetch_archive(source)
        check_counts(f"dump of {self}", source.rows, archive.rows_by_table)
        self.workspace.mkdir(parents=True, exist_ok=True)
        with _conversion:
            written = write_parquet(archive, source.ingest_date, self.workspace / PARQUET_FILE)
        details = {
            "raw_dump": source.version,
            "duckdb": duckdb.__version__,
            "unmapped_keys": written.unmapped.as_dict(),
        }
        manifest = self._commit(Stage.PARQUET, [written.path], written.rows, source.ingest_date, details)
        self._local_parquet = written.path
        shutil.rmtree(archive.directory)
        return self._outcome(manifest, time.monotonic() - started, preview=preview(written.path))

    def load(self, warehouse: Warehouse) -> Outcome:
        """Load the committed Parquet into its partition and count the partition's rows."""
        started = time.monotonic()
        source = self.lake.read_manifest(Stage.PARQUET, self.aggregate_type, self.day)
        if source is None:
            return self._nothing(Stage.PARQUET, "the lake has no Parquet of this day")
        if self._is_loaded(source, warehouse):
            return Outcome(
                source.rows,
                warehouse.partition_id(self.aggregate_type, self.day),
                source.total_size,
                details={"parquet": source.version},
            )
        parquet = self._local_parquet or self.lake.fetch(source, self.workspace)[0]
        job_id = f"mozagg2bq-{self}-{source.version}-{self.run.run_id}-{self.attempt}"
        partition = load_partition(
            warehouse, self.aggregate_type, self.day, parquet, re.sub(r"[^\w-]", "-", job_id), source.rows
        )
        details = {"parquet": source.version}
        self._commit(Stage.BIGQUERY_TABLE, (), source.rows, source.ingest_date, details)
        return Outcome(source.rows, partition, source.total_size, time.monotonic() - started, details, preview(parquet))

    def resumed(self, stage: Stage) -> Manifest | None:
        """What a run that this one repeats or resumes has committed of a stage; None where there is work to do."""
        try:
            manifest = self.lake.read_manifest(stage, self.aggregate_type, self.day)
        except DataError:
            return None  # it will be replaced
        return manifest if manifest is not None and self.run.continues(manifest.run) else None

    def _is_loaded(self, source: Manifest, warehouse: Warehouse) -> bool:
        """Whether a run that this one continues has loaded that Parquet, and its rows are still there."""
        done = self.resumed(Stage.BIGQUERY_TABLE)
        return (
            done is not None
            and done.details["parquet"] == source.version
            and warehouse.has_table(self.aggregate_type)
            and warehouse.count_rows(self.aggregate_type, self.day) == source.rows
        )

    def _fetch_archive(self, source: Manifest) -> DayArchive:
        directory = self.workspace / Stage.RAW_DUMP
        self.lake.fetch(source, directory)
        return open_day(directory, self.aggregate_type, self.day)

    def _commit(
        self,
        stage: Stage,
        paths: Sequence[Path],
        rows: Mapping[str, int],
        ingest_date: date,
        details: Mapping[str, Any],
    ) -> Manifest:
        manifest = Manifest(
            stage=stage,
            aggregate_type=self.aggregate_type,
            day=self.day,
            version=new_version(self.run.run_id),
            run=self.run,
            committed_at=datetime.now(UTC),
            ingest_date=ingest_date,
            files=tuple(describe(path) for path in paths),
            rows=rows,
            details=details,
        )
        self.lake.commit(manifest, paths, self.is_running)
        return manifest

    def _outcome(
        self,
        manifest: Manifest,
        seconds: float,
        preview: Sequence[Mapping[str, Any]] = (),
        warning: str | None = None,
    ) -> Outcome:
        return Outcome(
            manifest.rows,
            self.lake.uri(manifest),
            manifest.total_size,
            seconds,
            {"version": manifest.version, **manifest.details},
            preview,
            warning or _warning(manifest),
        )

    def _nothing(self, stage: Stage, reason: str) -> Outcome:
        """Nothing to work on: what the lake has of that day stays as it is."""
        kept = self.lake.read_manifest(stage, self.aggregate_type, self.day)
        if kept is None:
            return Outcome(warning=f"{reason}: nothing is stored or loaded")
        return self._outcome(
            kept, 0.0, warning=f"{reason}: the version of {kept.committed_at:%Y-%m-%d %H:%M} UTC is kept"
        )


Result: TypeAlias = Outcome | UserError | DataError


@contextmanager
def passing(
    days: Sequence[Day], stages: Sequence[Stage], dumps: Mapping[date, DumpResult], warehouse: Warehouse | None
) -> Iterator[Iterator[tuple[Day, Mapping[Stage, Result]]]]:
    """Take days through some stages, a few at once; gives, day by day, what each stage did, or what stopped it there.

    Leaving the block waits for the days in flight and drops the others.
    """
    with ThreadPoolExecutor(DAYS_AT_ONCE) as pool:
        try:
            results = pool.map(lambda day: _pass(day, stages, dumps.get(day.day), warehouse), days)
            yield zip(days, results, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _pass(
    day: Day, stages: Sequence[Stage], dump: DumpResult | None, warehouse: Warehouse | None
) -> Mapping[Stage, Result]:
    steps: dict[Stage, Callable[[], Outcome]] = {
        Stage.RAW_DUMP: partial(day.store_dump, dump),
        Stage.PARQUET: day.convert,
    }
    if warehouse is not None:
        steps[Stage.BIGQUERY_TABLE] = partial(day.load, warehouse)
    results: dict[Stage, Result] = {}
    try:
        for stage in stages:
            results[stage] = steps[stage]()
    except (UserError, DataError) as error:
        results[stage] = error
    finally:
        day.close()
    return results


def _warning(manifest: Manifest) -> str | None:
    """What is unusual about a version that was committed, in a line."""
    if manifest.stage is Stage.RAW_DUMP and manifest.details["rows_in_snapshot"] is None:
        return "the server shares no snapshot: its own rows are not counted"
    return UnmappedKeys.from_dict(manifest.details.get("unmapped_keys", {})).warning()


def load_partition(
    warehouse: Warehouse, aggregate_type: AggregateType, day: date, parquet: Path, job_id: str, rows: Mapping[str, int]
) -> str:
    """Replace a partition by a Parquet file's rows, if the file has those rows, and count them there."""
    check_counts(str(parquet), rows, count_rows(parquet))
    partition = warehouse.load(aggregate_type, day, parquet, job_id)
    check_counts(f"partition {partition}", rows, warehouse.count_rows(aggregate_type, day))
    return partition


def preview(parquet: Path) -> list[dict[str, Any]]:
    """The first rows of a Parquet file."""
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM read_parquet(?) LIMIT {PREVIEW_ROWS}", [str(parquet)])
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _version_of(tool: str) -> str:
    return subprocess.run((tool, "--version"), capture_output=True, text=True, check=True).stdout.strip()
