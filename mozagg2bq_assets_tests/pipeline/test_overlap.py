"""Stages side by side: the next part is dumped while days are converted and loaded, and the disk holds two parts."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.errors import Attempt, UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.parquet.converter import Converted, DuckDBConverter, Dump
from mozagg2bq_assets.patience import FIRST_PAUSE_SECONDS
from mozagg2bq_assets.pipeline.ingest import ingest
from mozagg2bq_assets.pipeline.parts import PARTS
from mozagg2bq_assets.pipeline.result import StageResult
from mozagg2bq_assets.postgres import dump
from mozagg2bq_assets_tests.helpers.runs import TYPE, Pipeline
from mozagg2bq_assets_tests.helpers.wait import wait_for
from mozagg2bq_assets_tests.pipeline.test_ingest import services

DAYS = DayRange(date(2019, 12, 1), date(2019, 12, 7))
PARTITIONS = [Partition(TYPE, day) for day in DAYS]
ALL = tuple(Stage)
TABLES = 6  # of a day


class Usage(NamedTuple):
    """What is asked of a disk."""

    free: int


@pytest.fixture
def days(empty_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Six days in the source, each of which is a part."""
    monkeypatch.setattr(dump, "PART_TABLES", TABLES)
    empty_pipeline.seed(DAYS, 0.001)
    return empty_pipeline


def run(pipeline: Pipeline, folder: Path, heard: Callable[[str], None] = lambda _: None) -> list[StageResult]:
    """All stages of all days, without a failure."""
    chosen = replace(services(pipeline, folder), patience_seconds=60)
    results = list(ingest(PARTITIONS, ALL, chosen, folder, progress=heard))
    assert [str(result) for result in results if result.error] == []
    assert len(results) == len(PARTITIONS) * len(ALL)
    return results


def test_loads_wait_for_nobody(days: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No load goes on before the last part is dumped: whoever waited for one of them would wait for ever."""
    dumped, load = threading.Event(), Warehouse.load

    def hear(message: str) -> None:
        if message.startswith("pg_dump: dumping contents") and PARTITIONS[-1].ds_nodash in message:
            dumped.set()

    def load_later(self: Warehouse, *arguments: object) -> None:
        assert dumped.wait(60)
        load(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Warehouse, "load", load_later)
    run(days, tmp_path, hear)
    assert days.reconcile(DAYS).differences == []


def test_two_parts_on_disk(days: Pipeline, tmp_path: Path) -> None:
    """However slow the engine is: dumps of no more days are there at any time, and nothing at the end."""
    seen, ended = set[int](), threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            # A folder may be removed while it is listed.
            with suppress(FileNotFoundError):
                seen.add(sum(1 for path in (tmp_path / Stage.RAW_DUMP / TYPE).glob("*") if any(path.glob("*.dat.gz"))))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        run(days, tmp_path)
    finally:
        ended.set()
        watcher.join()
    assert max(seen) in (1, PARTS)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_part_waits_for_room(days: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run says what it waits for, and goes on when somebody has made room."""
    began, said = time.monotonic(), list[str]()

    def room(_: Path) -> Usage:
        return Usage(10**12 if time.monotonic() - began > FIRST_PAUSE_SECONDS else 1000)

    monkeypatch.setattr("mozagg2bq_assets.postgres.dump.shutil.disk_usage", room)
    run(days, tmp_path, said.append)
    (line, *_) = [line for line in said if line.startswith("waiting ")]
    assert "has 0 MiB free, and the next dump may take" in line
    assert "use another disk, by TMPDIR" in line


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_engine_that_breaks(days: Pipeline, tmp_path: Path, when: str) -> None:
    """Its error ends the run, though the next part waits for room that nobody will make."""

    class Broken(DuckDBConverter):
        def convert(self, dumps: Iterable[Dump]) -> Iterator[tuple[Partition, Attempt[Converted]]]:
            for item in super().convert(dumps):
                wait_for(lambda: len(list((tmp_path / Stage.RAW_DUMP / TYPE).iterdir())) == PARTS)
                if when == "before":
                    raise UserError("out of order")
                yield replace(item[0], day=DAYS.end), item[1]  # of a partition that nobody knows

    before = set(threading.enumerate())
    chosen = replace(services(days, tmp_path), converter=Broken(tmp_path / Stage.PARQUET))
    with pytest.raises((UserError, KeyError)) as error:
        list(ingest(PARTITIONS, ALL, chosen, tmp_path))
    assert set(threading.enumerate()) <= before, error
