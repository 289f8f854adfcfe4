"""Two Dagster instances that know nothing of each other ingest the same days into the same lake."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import settings

from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.lake.manifest import MANIFESTS
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings, read_postgres
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

REPETITIONS = 50 if settings().max_examples == 500 else 5
ONE_DAY = DayRange(DAYS.start, list(DAYS)[1])


def run(folder: Path, seconds: float) -> list[StageResult]:
    """A run of an instance of its own, which begins a little later."""
    time.sleep(seconds)
    run_id = str(uuid4())
    writer = LakeWriter(Lake(LakeSettings.read()), Run(run_id, run_id), lambda _: None)
    services = Services(
        writer,
        open_source(read_postgres()),
        DuckDBConverter(folder / Stage.PARQUET),
        open_warehouse(BigQuerySettings.read()),
    )
    return list(ingest([Partition(TYPE, ONE_DAY.start)], tuple(Stage), services, folder))


def left_behind(pipeline: Pipeline) -> set[str]:
    """Objects that no manifest names; raises for a manifest that cannot be read, or names what is not there."""
    partition = Partition(TYPE, ONE_DAY.start)
    found: set[str] = set()
    for kind in MANIFESTS:
        manifest = pipeline.manifest(kind)
        folder = pipeline.lake.key(kind.of, partition.path)
        names = [file.name for file in manifest.files] + [MANIFEST]
        named = {f"{folder}/{manifest.version}/{name}" for name in names} | {f"{folder}/{MANIFEST}"}
        there = {listed.key for listed in pipeline.lake.list(f"{folder}/")}
        assert named <= there
        found |= there - named
    return found


@pytest.mark.stress
def test_two_instances(pipeline: Pipeline, tmp_path: Path) -> None:
    """Both succeed, every manifest is readable, rows are exact, and nothing is left after the later of both."""
    moments = random.Random(2019)  # noqa: S311
    for repetition in range(REPETITIONS):
        offset = moments.uniform(0, 0.8)
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(run, tmp_path / f"{repetition}-{n}", seconds) for n, seconds in enumerate((0.0, offset))
            ]
            results = [result for each in runs for result in each.result()]
        assert [(str(result), result.error) for result in results if result.error] == []
        assert len(results) == 6
        (day,) = pipeline.reconcile(ONE_DAY).days
        assert (day.source_rows, day.dump_rows, day.parquet_rows, day.bigquery_rows) == (250,) * 4, offset
        assert left_behind(pipeline) == set(), f"offset {offset}"
