"""Versions in the lake: committed or absent, checked byte by byte, and cleaned up after."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.manifest import Manifest, Run, Stage, describe
from mozagg2bq_assets.lake.store import Lake, new_version
from mozagg2bq_assets.schema import AggregateType

DAY = date(2019, 12, 1)
TYPE = AggregateType.BUILD_ID
FOLDER = f"{Stage.PARQUET}/{TYPE}/20191201"


def commit(lake: Lake, path: Path, run_id: str, running: frozenset[str] = frozenset()) -> Manifest:
    """Commit one file as a new version."""
    manifest = Manifest(
        Stage.PARQUET,
        TYPE,
        DAY,
        new_version(run_id),
        Run(run_id, run_id),
        datetime.now(UTC),
        DAY,
        (describe(path),),
        {"a": 1},
    )
    lake.commit(manifest, [path], running.__contains__)
    return manifest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    return path


def test_round_trip(lake: Lake, path: Path, tmp_path: Path) -> None:
    """What is committed is read back, and the version before is gone."""
    assert lake.read_manifest(Stage.PARQUET, TYPE, DAY) is None
    commit(lake, path, "first")
    second = commit(lake, path, "second")
    assert lake.read_manifest(Stage.PARQUET, TYPE, DAY) == second
    assert lake.manifests(Stage.PARQUET, TYPE) == {DAY: second}
    assert lake.fetch(second, tmp_path / "out")[0].read_bytes() == path.read_bytes()
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 2


def test_what_a_run_left_behind(lake: Lake, path: Path) -> None:
    """Files without a manifest are invisible; they stay while their run goes on, and go once it has ended."""
    first = commit(lake, path, "first")
    lake.client.upload_file(str(path), lake.bucket, f"{lake.prefix}/{FOLDER}/{new_version('crashed')}/file")
    assert lake.read_manifest(Stage.PARQUET, TYPE, DAY) == first
    commit(lake, path, "second", frozenset({"crashed"}))
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 3
    commit(lake, path, "third")
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 2


@pytest.mark.parametrize("position", range(0, 256, 51))
def test_any_changed_byte_of_a_file(lake: Lake, path: Path, tmp_path: Path, position: int) -> None:
    """It is an error that names the object."""
    manifest = commit(lake, path, "first")
    body = bytearray(path.read_bytes())
    body[position] ^= 1
    key = f"{lake.prefix}/{FOLDER}/{manifest.version}/file"
    lake.client.put_object(Bucket=lake.bucket, Key=key, Body=bytes(body))
    with pytest.raises(DataError, match="file: damaged, not as its manifest says"):
        lake.fetch(manifest, tmp_path / "out")
    lake.client.delete_object(Bucket=lake.bucket, Key=key)
    with pytest.raises(DataError, match="missing, though its manifest names it"):
        lake.fetch(manifest, tmp_path / "out")


def test_any_changed_bit_of_a_manifest(path: Path) -> None:
    """It is an error, or leaves the same manifest (white space)."""
    manifest = Manifest(
        Stage.PARQUET, TYPE, DAY, "v", Run("r", "r"), datetime.now(UTC), DAY, (describe(path),), {"nightly 73": 12}
    )
    text = manifest.to_json().encode()
    assert Manifest.from_json(text, "here") == manifest
    for position in range(len(text)):
        changed = bytearray(text)
        changed[position] ^= 1
        try:
            found = Manifest.from_json(bytes(changed), "here")
        except DataError as error:
            assert str(error).startswith("here: damaged manifest")  # noqa: PT017
        else:
            assert found == manifest
