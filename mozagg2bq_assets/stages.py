"""The three stages of a day, from source to lake to BigQuery: each commits its output or leaves all as it was.

Plain functions that know no orchestrator. What a stage did is an `Outcome`; a day that fails raises UserError or
DataError (CountMismatch where two counts differ).
"""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mozagg2bq_assets.errors import DataError, check_counts
from mozagg2bq_assets.lake.manifest import Manifest, Run, Stage, StoredFile, describe
from mozagg2bq_assets.lake.store import Lake, new_version
from mozagg2bq_assets.pgdump.archive import DayArchive, open_day
from mozagg2bq_assets.pgdump.dump import DumpResult, checked
from mozagg2bq_assets.schema import AggregateType, ds_nodash, rows_by_channel
from mozagg2bq_assets.transform.exact import UnmappedKeys
from mozagg2bq_assets.transform.kernel import PARQUET_FILE, count_rows, write_parquet

if TYPE_CHECKING:
    from mozagg2bq_assets.transform.spark import Converted, SourceFile
    from mozagg2bq_assets.warehouse.bigquery import Warehouse

PREVIEW_ROWS = 5

# A conversion takes all cores, and all the memory that is meant for one.
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
    _converting: Manifest | None = None

    def __str__(self) -> str:
        return f"{self.aggregate_type} {ds_nodash(self.day)}"

    def close(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.workspace, ignore_errors=True)
        if self._archive is not None:
            shutil.rmtree(self._archive.directory, ignore_errors=True)
        self._archive = self._local_parquet = None

    def store_dump(self, result: DumpResult | None) -> Outcome:
        """Check a day's dump against the source and commit it; a day without source rows changes nothing."""
        started = time.monotonic()
        if result is None and (done := self.resumed(Stage.RAW_DUMP)):
            return self._recognized(done)
        dump = None if result is None else checked(result)
        if dump is None or not any(dump.rows.values()):
            return self._nothing(Stage.RAW_DUMP, "the source has no rows of this day")
        details = {
            "snapshot": dump.snapshot,
            "taken_at": dump.taken_at.isoformat(),
            "snapshot_held_seconds": round(dump.held_seconds, 3),
            "rows_in_snapshot": dump.source_rows,
            "pg_dump": _version_of("pg_dump"),
        }
        manifest = self._commit(Stage.RAW_DUMP, dump.archive.paths, dump.rows, dump.taken_at.date(), details)
        self._archive = dump.archive
        return self._outcome(manifest, dump.seconds + time.monotonic() - started)

    def convert(self, converted: "Converted | None" = None) -> Outcome:
        """Turn the committed dump into Parquet, unless Spark has `converted` it already, and commit that."""
        if converted is not None:
            return self._commit_converted(converted)
        started = time.monotonic()
        source = self.lake.read_manifest(Stage.RAW_DUMP, self.aggregate_type, self.day)
        if source is None:
            return self._nothing(Stage.PARQUET, "the lake has no dump of this day")
        if (done := self.resumed(Stage.PARQUET)) and done.details["raw_dump"] == source.version:
            return self._recognized(done)
        archive = self._archive or self._fetch_archive(source)
        self.workspace.mkdir(parents=True, exist_ok=True)
        with _conversion:
            written = write_parquet(archive, source.ingest_date, self.workspace / PARQUET_FILE, source.rows)
        details = _conversion_details(source, "duckdb", written.unmapped.as_dict())
        manifest = self._commit(Stage.PARQUET, [written.path], written.rows, source.ingest_date, details)
        self._local_parquet = written.path
        shutil.rmtree(archive.directory)
        return self._outcome(manifest, time.monotonic() - started, preview=preview(written.path))

    def source_files(self) -> "list[SourceFile]":
        """What Spark has to convert of the committed dump; nothing where there is none, or it has been done."""
        from mozagg2bq_assets.transform.storage import source_files

        source = self.lake.read_manifest(Stage.RAW_DUMP, self.aggregate_type, self.day)
        done = self.resumed(Stage.PARQUET)
        if source is None or (done and done.details["raw_dump"] == source.version):
            return []
        self._converting = source
        return source_files(self.lake, source, self.workspace / Stage.RAW_DUMP)

    def _commit_converted(self, converted: "Converted") -> Outcome:
        """Name in a manifest what the executors have stored, if it has all rows of the dump they were given."""
        if isinstance(converted, DataError):
            raise converted
        if self._converting is None:
            raise ValueError(f"{self}: converted without its source files")
        source, version = self._converting, Path(converted.stored.location).parent.name
        check_counts(f"Parquet of {self}", rows_by_channel(source.rows), converted.rows)
        details = _conversion_details(source, "spark", converted.unmapped)
        manifest = self._manifest(
            Stage.PARQUET, [converted.stored.file], converted.rows, source.ingest_date, details, version
        )
        self.lake.switch(manifest, self.is_running)
        return self._outcome(manifest, converted.seconds)

    def load(self, warehouse: "Warehouse") -> Outcome:
        """Load the committed Parquet into its partition and count the partition's rows."""
        started = time.monotonic()
        source = self.lake.read_manifest(Stage.PARQUET, self.aggregate_type, self.day)
        if source is None:
            return self._nothing(Stage.PARQUET, "the lake has no Parquet of this day")
        if (done := self._loaded(source, warehouse)) is not None:
            self.lake.clean_up(done, self.is_running)
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

    def _recognized(self, manifest: Manifest) -> Outcome:
        self.lake.clean_up(manifest, self.is_running)
        return self._outcome(manifest, 0.0)

    def _loaded(self, source: Manifest, warehouse: "Warehouse") -> Manifest | None:
        """The load of that Parquet by a run that this one continues, if its rows are still there."""
        done = self.resumed(Stage.BIGQUERY_TABLE)
        if (
            done is not None
            and done.details["parquet"] == source.version
            and warehouse.has_table(self.aggregate_type)
            and warehouse.count_rows(self.aggregate_type, self.day) == source.rows
        ):
            return done
        return None

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
        files, version = [describe(path) for path in paths], new_version(self.run.run_id)
        manifest = self._manifest(stage, files, rows, ingest_date, details, version)
        self.lake.commit(manifest, paths, self.is_running)
        return manifest

    def _manifest(
        self,
        stage: Stage,
        files: Sequence[StoredFile],
        rows: Mapping[str, int],
        ingest_date: date,
        details: Mapping[str, Any],
        version: str,
    ) -> Manifest:
        return Manifest(
            stage=stage,
            aggregate_type=self.aggregate_type,
            day=self.day,
            version=version,
            run=self.run,
            committed_at=datetime.now(UTC),
            ingest_date=ingest_date,
            files=tuple(files),
            rows=rows,
            details=details,
        )

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


def _warning(manifest: Manifest) -> str | None:
    """What is unusual about a version that was committed, in a line."""
    if manifest.stage is Stage.RAW_DUMP and manifest.details["rows_in_snapshot"] is None:
        return "the server shares no snapshot: its own rows are not counted"
    return UnmappedKeys.from_dict(manifest.details.get("unmapped_keys", {})).warning()


def _conversion_details(source: Manifest, engine: str, unmapped: Mapping[str, Any]) -> dict[str, Any]:
    return {"raw_dump": source.version, "engine": engine, "duckdb": duckdb.__version__, "unmapped_keys": unmapped}


def load_partition(
    warehouse: "Warehouse",
    aggregate_type: AggregateType,
    day: date,
    parquet: Path,
    job_id: str,
    rows: Mapping[str, int],
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
