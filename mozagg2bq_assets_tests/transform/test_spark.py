"""Spark through the assets, on one machine and on a standalone cluster, with damage, deaths and nothing installed."""

import subprocess
import sys
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from mozagg2bq_assets.assets import PARQUET, STAGES, stage_key
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import Stage
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.reconcile import Range, reconcile
from mozagg2bq_assets.schema import AggregateType, ds_nodash
from mozagg2bq_assets.transform.spark import check_java
from mozagg2bq_assets.warehouse.bigquery import Warehouse
from mozagg2bq_assets_tests.transform.test_rows import parquet_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TYPE = AggregateType.BUILD_ID
DAYS = Range(date(2019, 12, 1), date(2019, 12, 4), counted=True)
BAD = date(2019, 12, 2)


@pytest.fixture
def days(administrator: psycopg.Connection) -> None:
    """Three days in the source."""
    seed(administrator, 0.001)


def seed(connection: psycopg.Connection, scale: float) -> None:
    """Fill the source."""
    sample.create_update_dates(connection)
    for day in DAYS:
        for _ in sample.seed_day(connection, TYPE, day, scale):
            pass


def run(engine: str, stages: tuple[Stage, ...] = STAGES) -> ExecuteInProcessResult:
    """All days through the stages with an engine."""
    from mozagg2bq_assets.definitions import defs

    config: dict[str, Any] = {"ops": {f"{TYPE}_stages": {"config": {"engine": engine}}}}
    with DagsterInstance.ephemeral() as instance:
        return defs.resolve_job_def(f"{TYPE}_job").execute_in_process(
            instance=instance,
            run_config=config,
            asset_selection=[stage_key(TYPE, stage) for stage in stages],
            tags={
                "dagster/asset_partition_range_start": str(DAYS.start),
                "dagster/asset_partition_range_end": str(DAYS.end - timedelta(days=1)),
            },
            raise_on_error=False,
        )


def stored_rows(lake: Lake, folder: Path) -> Counter[tuple[object, ...]]:
    """All rows of the days in the lake; and nothing else is there."""
    rows: Counter[tuple[object, ...]] = Counter()
    keys = set()
    for day in DAYS:
        manifest = lake.read_manifest(PARQUET, TYPE, day)
        assert manifest is not None
        (path,) = lake.fetch(manifest, folder)
        rows += parquet_rows(path)
        keys |= {f"{ds_nodash(day)}/{MANIFEST}", f"{ds_nodash(day)}/{manifest.version}/{path.name}"}
    assert lake.objects(PARQUET, TYPE).keys() == keys
    return rows


def test_all_stages(
    spark: "SparkSession",
    days: None,
    administrator: psycopg.Connection,
    lake: Lake,
    warehouse: Warehouse,
    tmp_path: Path,
) -> None:
    """Both engines leave the same rows, and nothing differs anywhere."""
    assert run("spark").success
    assert reconcile(administrator, lake, warehouse, TYPE, DAYS).differences == []
    of_spark = stored_rows(lake, tmp_path)
    assert run("duckdb", (PARQUET,)).success
    assert stored_rows(lake, tmp_path) == of_spark


def test_damaged_file_costs_its_day_only(spark: "SparkSession", days: None, lake: Lake, warehouse: Warehouse) -> None:
    """A changed byte in the lake stops that day and names the object; the others are committed."""
    assert run("duckdb").success
    key = next(key for key in lake.objects(Stage.RAW_DUMP, TYPE) if key[:8] == ds_nodash(BAD) and key.endswith(".gz"))
    full = f"{lake.prefix}/raw_dump/{TYPE}/{key}"
    body = bytearray(lake.client.get_object(Bucket="lake", Key=full)["Body"].read())
    body[len(body) // 2] ^= 1
    lake.client.put_object(Bucket="lake", Key=full, Body=bytes(body))
    before = [lake.read_manifest(PARQUET, TYPE, day) for day in DAYS]
    result = run("spark", (PARQUET,))
    assert not result.success
    (bad,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert (bad.partition, full in (bad.description or "")) == (str(BAD), True)
    after = [lake.read_manifest(PARQUET, TYPE, day) for day in DAYS]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]


def test_unknown_engine(stack: object, days: None, lake: Lake, warehouse: Warehouse) -> None:
    """One line that names those there are."""
    result = run("flink")
    assert not result.success
    assert any("use duckdb or spark" in str(event) for event in result.all_events)
    assert lake.objects(PARQUET, TYPE) == {}


def test_no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install is said, also where Java is too old."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no Java found; Spark needs a JDK 17 or newer: install one"):
        check_java()
    old = tmp_path / "java"
    old.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    old.chmod(0o755)
    with pytest.raises(UserError, match=r"Java is too old \(openjdk version \"1.8.0_392\"\); Spark needs a JDK 17"):
        check_java()


def test_default_path_knows_no_spark() -> None:
    """Loading the code location imports neither Spark nor pandas."""
    code = (
        "import sys, mozagg2bq_assets.definitions;"
        "print(*{'pyspark', 'dagster_pyspark', 'pandas', 'duckdb_spark'} & sys.modules.keys())"
    )
    result = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
