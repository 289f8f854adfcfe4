"""Versions that are kept, and the commands that list, check and restore them."""

from pathlib import Path

import pytest

from mozagg2bq_assets.lake.manifest import AnyManifest, DumpManifest, LoadManifest, ParquetManifest
from mozagg2bq_assets.lake.versions import complete_versions
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets_tests.helpers.cli import run
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, merge

DAY = list(DAYS)[1]
PARTITION = Partition(TYPE, DAY)
ARGUMENTS = ("--aggregate-type", "build_id", "--date", str(DAY))


def lake(command: str, *arguments: str) -> tuple[int, str, str]:
    """Status, output and errors of `mozagg2bq lake …` for the day."""
    result = run("lake", command, *ARGUMENTS, *arguments)
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def three_times(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """Days that were ingested three times, of which two versions are kept; they have three rows more each time."""
    for submission_date in ("", "20191220", "20191221"):
        if submission_date:
            merge(pipeline.source, "build_id_nightly_73_20191202", submission_date)
        assert [result.error for result in pipeline.ingest(tmp_path, [DAY], versions=2)] == [None] * 3
    return pipeline


def rows(pipeline: Pipeline, kind: type[DumpManifest | ParquetManifest | LoadManifest]) -> list[tuple[int, bool]]:
    """Rows of each version, and whether it is current."""
    return [(manifest.rows.total, is_current) for manifest, is_current in versions(pipeline, kind)]


def versions(pipeline: Pipeline, kind: type[AnyManifest]) -> list[tuple[AnyManifest, bool]]:
    """The versions of the day, none of them damaged."""
    found = complete_versions(pipeline.lake, kind, PARTITION)
    return [(manifest, is_current) for manifest, is_current in found if isinstance(manifest, kind)]


def test_kept(three_times: Pipeline) -> None:
    """Of each stage the last two."""
    for kind in (DumpManifest, ParquetManifest, LoadManifest):
        assert rows(three_times, kind) == [(256, True), (253, False)]


def test_list_and_verify(three_times: Pipeline) -> None:
    """Every version is listed, and every file is read; damage is named, also in one that is not current."""
    status, output, _ = lake("list")
    assert status == 0
    assert [(line[0], "256 rows" in line, "253 rows" in line) for line in output.splitlines()] == [
        ("*", True, False),
        (" ", False, True),
    ] * 3
    assert lake("verify")[:2] == (0, "18 files are as their manifests say\n")
    (_, (earlier, _)) = versions(three_times, ParquetManifest)
    key = three_times.lake.key(Stage.PARQUET, PARTITION.path, earlier.version, earlier.files[0].name)
    three_times.lake.client.put_object(Bucket=three_times.lake.bucket, Key=key, Body=b"damaged")
    status, output, errors = lake("verify")
    assert status == 1
    assert f"DAMAGED: s3://{three_times.lake.bucket}/{key}: damaged, not as its manifest says" in output
    assert "not the current version: do not restore it" in output
    assert "1 versions are damaged" in errors


def test_restore(three_times: Pipeline) -> None:
    """The version before is current again everywhere, and so is its dump; back again by its name."""
    ((now, _), _) = versions(three_times, ParquetManifest)
    status, output, errors = lake("restore")
    assert (status, errors) == (0, "")
    assert "253 rows of version" in output
    assert three_times.warehouse.count_partition(PARTITION).total == 253
    assert [three_times.manifest(kind, DAY).rows.total for kind in (DumpManifest, ParquetManifest)] == [253, 253]
    differences = three_times.reconcile(DayRange(DAY, list(DAYS)[2])).differences
    assert ["in the source, 119 in the dump" in line or "rows in the source" in line for line in differences] == [True]
    assert lake("restore", "--version", now.version)[0] == 0
    assert three_times.reconcile(DayRange(DAY, list(DAYS)[2])).differences == []


@pytest.mark.parametrize("kind", [DumpManifest, ParquetManifest])
def test_damaged_manifest(three_times: Pipeline, kind: type[DumpManifest | ParquetManifest]) -> None:
    """Where the current manifest is damaged, the others are listed, and a version can be made current again."""
    bucket, key = three_times.lake.bucket, three_times.lake.key(kind.of, PARTITION.path, "manifest.json")
    three_times.lake.client.put_object(Bucket=bucket, Key=key, Body=b"{}")
    for command, lines in (("list", 6), ("verify", 2)):
        status, output, errors = lake(command)
        assert (status, len(output.splitlines())) == (1, lines)
        assert f"s3://{bucket}/{key}: damaged manifest" in errors + output
    assert lake("restore")[0] == 0
    assert not [line for line in three_times.reconcile(DayRange(DAY, list(DAYS)[2])).differences if "read" in line]
    assert lake("list")[0] == lake("verify")[0] == 0


def test_damaged_version(three_times: Pipeline) -> None:
    """A version whose file is damaged does not become current: rows and lake stay as they are."""
    (_, (earlier, _)) = versions(three_times, ParquetManifest)
    key = three_times.lake.key(Stage.PARQUET, PARTITION.path, earlier.version, earlier.files[0].name)
    three_times.lake.client.put_object(Bucket=three_times.lake.bucket, Key=key, Body=b"x" * earlier.files[0].size)
    status, _, errors = lake("restore")
    assert status == 1
    assert "damaged, not as its manifest says" in errors
    assert rows(three_times, ParquetManifest) == rows(three_times, DumpManifest) == [(256, True), (253, False)]
    assert three_times.warehouse.count_partition(PARTITION).total == 256


def test_nothing_to_restore(pipeline: Pipeline) -> None:
    """No such version, and none at all."""
    assert pipeline.run().success
    assert "has no earlier version of its Parquet file" in lake("restore")[2]
    assert (
        "parquet of build_id 20191202 has no version x: see `mozagg2bq lake list`"
        in lake("restore", "--version", "x")[2]
    )
