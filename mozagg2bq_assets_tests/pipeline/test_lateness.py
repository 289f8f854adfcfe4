"""Which days are behind the source: grown, trimmed, shrunk; and what a day that shrank comes to."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.cache import ManifestCache
from mozagg2bq_assets.lake.manifest import DumpManifest, LoadManifest
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.lateness import Lateness, find_late
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, merge

FIRST, SECOND, THIRD = DAYS
TABLE = "build_id_nightly_73_20191202"


def lateness(pipeline: Pipeline) -> Lateness:
    """The comparison, by a process that has read nothing yet."""
    loads = ManifestCache().manifests(pipeline.lake, LoadManifest, TYPE)
    with open_source(read_postgres()).connect() as connection:
        return find_late(connection, TYPE, loads)


def execute(*statements: str) -> Callable[[Pipeline], None]:
    """As the source's owner."""

    def change(pipeline: Pipeline) -> None:
        for statement in statements:
            pipeline.source.execute(statement.encode())

    return change


CHANGES: dict[str, tuple[Callable[[Pipeline], None], str]] = {
    "nothing": (execute(), ""),
    "rows are merged into a table": (lambda p: merge(p.source, TABLE, "20191205"), "late"),
    "a table comes": (lambda p: merge(p.source, "build_id_esr_71_20191202", "20191205"), "late"),
    "a table is trimmed": (execute(f"DROP TABLE {TABLE}"), ""),
    "all tables are trimmed": (lambda p: trim(p), ""),
    "a table is dropped with its record": (
        execute(f"DROP TABLE {TABLE}", f"DELETE FROM table_update_dates WHERE tablename = '{TABLE}'"),
        "shrunk",
    ),
    "a day is dropped with its records": (lambda p: p.drop_day(SECOND), "shrunk"),
    "a day that was never ingested comes": (lambda p: merge(p.source, "build_id_esr_71_20191220", "20191220"), ""),
}


def trim(pipeline: Pipeline) -> None:
    """Drop the second day's tables, as the trimming job does."""
    tables = "SELECT tablename FROM pg_tables WHERE tablename ~ '_20191202[0-9]*$'"
    for (name,) in pipeline.source.execute(tables.encode()).fetchall():
        pipeline.source.execute(f"DROP TABLE {name}".encode())


@pytest.mark.parametrize("kind", CHANGES)
def test_compared(pipeline: Pipeline, tmp_path: Path, kind: str) -> None:
    """The day is late, held as it is, or neither; once it was ingested again, nothing is behind."""
    change, expected = CHANGES[kind]
    pipeline.ingest(tmp_path)
    change(pipeline)
    found = lateness(pipeline)
    assert (list(found.late), list(found.shrunk), found.unknown, found.recorded) == (
        [SECOND] if expected == "late" else [],
        [SECOND] if expected == "shrunk" else [],
        [],
        True,
    )
    results = pipeline.ingest(tmp_path)
    assert [result for result in results if result.error and expected != "shrunk"] == []
    again = lateness(pipeline)
    assert (again.late, list(again.shrunk)) == ({}, [SECOND] if expected == "shrunk" else [])


def test_trimmed_days_stay(pipeline: Pipeline, tmp_path: Path) -> None:
    """A run over a day that was trimmed, in part or wholly, leaves its rows as they are, and its warning says why."""
    pipeline.ingest(tmp_path)
    pipeline.source.execute(f"DROP TABLE {TABLE}".encode())
    results = [result for result in pipeline.ingest(tmp_path) if result.partition.day == SECOND]
    assert [result.error for result in results] == [None] * 3
    assert "1 of its tables were trimmed from the source since" in str(results[0].warning)
    trim(pipeline)
    pipeline.ingest(tmp_path)
    assert pipeline.warehouse.count_partition(Partition(TYPE, SECOND)).total == 250


@pytest.mark.parametrize("statement", [f"DELETE FROM {TABLE} WHERE ctid = '(0,1)'", f"TRUNCATE {TABLE}"])
def test_a_day_that_shrinks(pipeline: Pipeline, tmp_path: Path, statement: str) -> None:
    """It is held back by name, the version before stays everywhere, and other days are done; until it is accepted."""
    pipeline.ingest(tmp_path)
    before = pipeline.manifest(DumpManifest, SECOND)
    pipeline.source.execute(statement.encode())
    (failed,) = [result for result in pipeline.ingest(tmp_path) if result.error]
    assert (failed.partition.day, failed.stage) == (SECOND, Stage.RAW_DUMP)
    assert isinstance(failed.error, DataError)
    assert f"held back, as the day has shrunk: {TABLE} had" in str(failed.error)
    assert pipeline.manifest(DumpManifest, SECOND) == before
    assert pipeline.warehouse.count_partition(Partition(TYPE, SECOND)).total == 250
    assert [result.error for result in pipeline.ingest(tmp_path, accept_shrink=True)] == [None] * 9
    assert pipeline.reconcile().differences == []


def test_a_table_that_is_lost(pipeline: Pipeline, tmp_path: Path) -> None:
    """A table that is gone with its record is no trimmed one."""
    pipeline.ingest(tmp_path)
    CHANGES["a table is dropped with its record"][0](pipeline)
    (failed,) = [result for result in pipeline.ingest(tmp_path) if result.error]
    assert f"{TABLE} is gone" in str(failed.error)


def test_without_records(empty_pipeline: Pipeline, tmp_path: Path) -> None:
    """Names are compared, and the rows of recent days."""
    today = datetime.now(UTC).date()
    days = [SECOND, today - timedelta(days=2)]
    for day in days:
        sample.create_table(empty_pipeline.source, f"build_id_nightly_73_{day:%Y%m%d}")
        sample.insert(empty_pipeline.source, f"build_id_nightly_73_{day:%Y%m%d}", sample.EDGE_ROWS)
    assert [result.error for result in empty_pipeline.ingest(tmp_path, days)] == [None] * 6
    assert (lateness(empty_pipeline).late, lateness(empty_pipeline).recorded) == ({}, False)
    for day in days:
        sample.insert(empty_pipeline.source, f"build_id_nightly_73_{day:%Y%m%d}", sample.EDGE_ROWS[:1])
    assert list(lateness(empty_pipeline).late) == days[1:]
    sample.create_table(empty_pipeline.source, "build_id_beta_72_20191202")
    assert sorted(lateness(empty_pipeline).late) == days
    empty_pipeline.source.execute("DROP TABLE build_id_beta_72_20191202, build_id_nightly_73_20191202")
    assert (list(lateness(empty_pipeline).late), lateness(empty_pipeline).trimmed) == (days[1:], 1)


def test_a_day_that_is_young(empty_pipeline: Pipeline, tmp_path: Path) -> None:
    """Without source it fails, and is not recorded as empty; an old one is."""
    writer = LakeWriter(empty_pipeline.lake, Run("run", "run"), lambda _: False)
    services = Services(writer, open_source(read_postgres()), source_grace=timedelta(hours=48))
    days = [SECOND, datetime.now(UTC).date() - timedelta(days=1)]
    results = list(ingest([Partition(TYPE, day) for day in days], [Stage.RAW_DUMP], services, tmp_path))
    old, young = sorted(results, key=lambda result: result.partition)
    assert old.warning == "the source has no rows of this day: nothing is stored or loaded"
    assert "the source has no rows of this day yet: it is tried again by the schedule" in str(young.error)


def test_a_manifest_is_read_once(pipeline: Pipeline, tmp_path: Path) -> None:
    """Until it changes."""
    pipeline.ingest(tmp_path)
    cache = ManifestCache()
    before = cache.manifests(pipeline.lake, LoadManifest, TYPE)
    merge(pipeline.source, TABLE, "20191205")
    pipeline.ingest(tmp_path)
    read: list[Partition] = []

    class Counting(type(pipeline.lake)):  # type: ignore[misc]
        def read_or_error(self, kind: Any, partition: Partition) -> Any:
            read.append(partition)
            return super().read_or_error(kind, partition)

    after = cache.manifests(Counting(pipeline.lake.settings, pipeline.lake.client), LoadManifest, TYPE)
    assert len(read) == 3
    assert before.keys() == after.keys()
    assert cache.manifests(Counting(pipeline.lake.settings, pipeline.lake.client), LoadManifest, TYPE) == after
    assert len(read) == 3
