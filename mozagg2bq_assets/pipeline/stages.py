"""Commit a partition's dump or Parquet file, and load it. A stage that fails leaves the lake's version as it was.

BigQuery may have new rows already when a load fails; the load's manifest then still names the file before.
A stage reads what the stage before it committed to the lake. A copy of that on this machine's disk is used only for the
version that it is a copy of. Every method raises OperatorError for a partition that fails (CountMismatch where two
counts differ).
"""

import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mozagg2bq_assets.errors import DataError, HeldBack, some
from mozagg2bq_assets.lake.manifest import (
    AnyManifest,
    DumpDetails,
    DumpManifest,
    LoadDetails,
    LoadManifest,
    ParquetDetails,
    ParquetManifest,
    StageManifest,
)
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.counts import ChannelCounts, UnmappedKeys, check_counts
from mozagg2bq_assets.model.files import StoredFile, describe
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.updates import SourceState
from mozagg2bq_assets.parquet.converter import Converted, Engine
from mozagg2bq_assets.parquet.reader import count_channels, preview
from mozagg2bq_assets.parquet.writer import ParquetFile
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.postgres.dump import PartitionDump

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse


@dataclass(frozen=True)
class Stages:
    """The stages as one run does them. `attempt` counts the retries of the run's step, from 0."""

    writer: LakeWriter
    attempt: int = 0
    accept_shrink: bool = False

    def kept_dump(self, dump: PartitionDump) -> StageResult | None:
        """The version before, as a result, where the source has trimmed tables since; None to commit the new dump.

        Raises HeldBack for a day that has shrunk in any other way, unless that is accepted; the version before stays.
        """
        try:
            before = self.writer.lake.read(DumpManifest, dump.archive.partition)
        except DataError:
            return None  # it will be replaced
        if before is None or self.accept_shrink:
            return None
        known = before.details.source or SourceState("", dict.fromkeys(before.rows, ""))
        now = (
            dump.state if before.details.source else replace(dump.state, dropped=dict.fromkeys(dump.state.dropped, ""))
        )
        if shrunk := [*_smaller(before.rows, dump.rows), *(f"{name} is gone" for name in now.lost_since(known))]:
            raise HeldBack(
                f"held back, as the day has shrunk: {some(shrunk)}; the version before is kept: to store the"
                " day as it is in the source now, run it with accept_shrink in the run's config"
            )
        if trimmed := now.trimmed_since(known):
            warning = f"{len(trimmed)} of its tables were trimmed from the source since: the version before is kept"
            return replace(self._result(before, 0.0), warning=warning)
        return None

    def resumed_dump(self, partition: Partition) -> StageResult | None:
        """A day's dump, as a result, if it was committed by a run which this one continues; None otherwise."""
        manifest = self.writer.resumed(DumpManifest, partition)
        return None if manifest is None else self._resumed(manifest)

    def resumed_parquet(self, dump: DumpManifest) -> StageResult | None:
        """The same for the Parquet file of that dump."""
        manifest = self.writer.resumed(ParquetManifest, dump.partition)
        if manifest is None or manifest.details.raw_dump != dump.version:
            return None
        return self._resumed(manifest)

    def commit_dump(self, dump: PartitionDump) -> tuple[StageResult, DumpManifest]:
        """Commit a partition's dump, which has been counted against the source."""
        started = time.monotonic()
        details = DumpDetails(
            snapshot=dump.snapshot,
            taken_at=dump.taken_at,
            snapshot_held_seconds=round(dump.held_seconds, 3),
            rows_in_snapshot=dump.source_rows,
            left_out=dump.archive.left_out,
            pg_dump=_version_of("pg_dump"),
            source=dump.state,
        )
        manifest = DumpManifest(
            **self._common(
                dump.archive.partition,
                dump.taken_at.date(),
                [*map(describe, dump.archive.tables_of_contents), *dump.files],
            ),
            rows=dump.rows,
            details=details,
        )
        uncleaned = self.writer.commit(manifest, dump.archive.paths)
        return self._result(manifest, dump.seconds + time.monotonic() - started, uncleaned), manifest

    def commit_parquet(
        self, dump: DumpManifest, converted: Converted, engine: Engine
    ) -> tuple[StageResult, ParquetManifest]:
        """Commit the Parquet file of a dump, if it has all rows of the dump."""
        started = time.monotonic()
        check_counts(f"Parquet of {dump.partition}", dump.rows.by_channel(), converted.rows)
        named = converted.unmapped.most_frequent()
        details = ParquetDetails(
            raw_dump=dump.version,
            engine=engine,
            duckdb=duckdb.__version__,
            unmapped_keys=dict(named),
            more_unmapped_keys=len(converted.unmapped) - len(named),
            source=dump.details.source,
        )
        local = [converted.path] if isinstance(converted, ParquetFile) else []
        stored = map(describe, local) if isinstance(converted, ParquetFile) else [converted.file]
        version = None if isinstance(converted, ParquetFile) else converted.version
        manifest = ParquetManifest(
            **self._common(dump.partition, dump.ingest_date, stored, version), rows=converted.rows, details=details
        )
        uncleaned = self.writer.commit(manifest, local)
        result = self._result(manifest, converted.seconds + time.monotonic() - started, uncleaned)
        return replace(result, preview=preview(local[0]) if local else ()), manifest

    def load(
        self, warehouse: "Warehouse", partition: Partition, local: "LocalParquet | None", directory: Path
    ) -> StageResult:
        """Load the committed Parquet file into its partition of the table, and count the rows there.

        The file is fetched into `directory`, unless `local` is a copy of it. Either is removed once it is uploaded.
        """
        started = time.monotonic()
        source = self.writer.lake.read(ParquetManifest, partition)
        if source is None:
            warning = "the lake has no Parquet of this day: nothing is stored or loaded"
            return StageResult(partition, Stage.BIGQUERY_TABLE, warning=warning)
        details = LoadDetails(parquet=source.version, source=source.details.source)
        result = StageResult(
            partition,
            Stage.BIGQUERY_TABLE,
            source.rows,
            warehouse.partition_id(partition),
            source.total_size,
            details=details.model_dump(exclude={"source"}),
        )
        if (done := self._loaded(source, warehouse)) is not None:
            return replace(result, warning=self.writer.clean_up(done), resumed=done.run.run_id)
        is_copy = local is not None and local.version == source.version
        # A step that is taken again may have to fetch what has gone.
        path = local.path if local and is_copy and local.path.exists() else self.writer.lake.fetch(source, directory)[0]
        result = replace(result, preview=preview(path))
        load_partition(warehouse, partition, path, self._job_id(source), source.rows, path.unlink)
        manifest = LoadManifest(**self._common(partition, source.ingest_date, ()), rows=source.rows, details=details)
        uncleaned = self.writer.commit(manifest, ())
        return replace(result, seconds=time.monotonic() - started, warning=uncleaned)

    def without_input(self, kind: type[AnyManifest], partition: Partition, reason: str) -> StageResult:
        """A stage with nothing to work on: what the lake has of that partition stays as it is."""
        kept = self.writer.lake.read(kind, partition)
        if kept is None:
            return StageResult(partition, kind.of, warning=f"{reason}: nothing is stored or loaded")
        warning = f"{reason}: the version of {kept.committed_at:%Y-%m-%d %H:%M} UTC is kept"
        return replace(self._result(kept, 0.0), warning=warning)

    def _resumed(self, manifest: DumpManifest | ParquetManifest) -> StageResult:
        return replace(self._result(manifest, 0.0, self.writer.clean_up(manifest)), resumed=manifest.run.run_id)

    def _loaded(self, source: ParquetManifest, warehouse: "Warehouse") -> LoadManifest | None:
        """The load of that Parquet file by a run that this one continues, if its rows are still there."""
        done = self.writer.resumed(LoadManifest, source.partition)
        if (
            done is not None
            and done.details.parquet == source.version
            and warehouse.has_table(source.aggregate_type)
            and warehouse.count_partition(source.partition) == source.rows
        ):
            return done
        return None

    def _job_id(self, source: ParquetManifest) -> str:
        """The load job's, always the same for one attempt, so that a repeated request finds its job."""
        job_id = f"mozagg2bq-{source.partition}-{source.version}-{self.writer.run.run_id}-{self.attempt}"
        return re.sub(r"[^\w-]", "-", job_id)

    def _common(
        self, partition: Partition, ingest_date: date, files: Iterable[StoredFile], version: str | None = None
    ) -> dict[str, Any]:
        """What the manifests of all stages say."""
        run = self.writer.run
        return {
            "aggregate_type": partition.aggregate_type,
            "day": partition.day,
            "version": version or new_version(run.run_id),
            "run": run,
            "committed_at": datetime.now(UTC),
            "ingest_date": ingest_date,
            "files": tuple(files),
        }

    def _result(self, manifest: StageManifest, seconds: float, uncleaned: str | None = None) -> StageResult:
        return StageResult(
            manifest.partition,
            manifest.of,
            manifest.rows,
            self.writer.lake.uri(manifest),
            manifest.total_size,
            seconds,
            {"version": manifest.version, **manifest.details.model_dump(mode="json", exclude={"source"})},
            warning="; ".join(filter(None, (_warning(manifest), uncleaned))) or None,
        )


@dataclass(frozen=True)
class LocalParquet:
    """This machine's copy of one version of a Parquet file."""

    version: str
    path: Path


def _warning(manifest: StageManifest) -> str | None:
    """What is unusual about a version that was committed, in a line."""
    if isinstance(manifest, ParquetManifest):
        return UnmappedKeys(manifest.details.unmapped_keys).warning(manifest.details.more_unmapped_keys)
    return None


def load_partition(
    warehouse: "Warehouse",
    partition: Partition,
    parquet: Path,
    job_id: str,
    rows: ChannelCounts,
    uploaded: Callable[[], None] = lambda: None,
) -> None:
    """Replace a partition by a Parquet file's rows, if the file has those rows, and count them there.

    `uploaded` hears when BigQuery has the file.
    """
    check_counts(str(parquet), rows, count_channels(parquet))
    warehouse.load(partition, parquet, job_id, uploaded)
    check_counts(f"partition {warehouse.partition_id(partition)}", rows, warehouse.count_partition(partition))


def _smaller(before: Mapping[str, int], now: Mapping[str, int]) -> Iterator[str]:
    for name, rows in now.items():
        if rows < before.get(name, 0):
            yield f"{name} had {before[name]} rows and has {rows}"


def _version_of(tool: str) -> str:
    return subprocess.run((tool, "--version"), capture_output=True, text=True, check=True).stdout.strip()
