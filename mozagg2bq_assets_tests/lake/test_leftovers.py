"""What runs that were killed have left in the lake, for all days, and the command that removes it."""

from datetime import timedelta
from pathlib import Path

import pytest

from mozagg2bq_assets.lake.manifest import ParquetManifest
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets_tests.helpers.cli import run
from mozagg2bq_assets_tests.helpers.manifests import PARTITION, TYPE, parquet_manifest

NEVER_COMMITTED = Partition(TYPE, PARTITION.day + timedelta(days=1))
PART = b"1" * 6 * 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(b"rows")
    return path


def begin_upload(lake: Lake, partition: Partition, run_id: str) -> str:
    """Store one part of a file of several, as a run that is killed then; returns the key of its version's folder."""
    folder = lake.key(Stage.PARQUET, partition.path, new_version(run_id))
    bucket, key = lake.bucket, f"{folder}/aggregates.parquet"
    upload_id = lake.client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    lake.client.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=1, Body=PART)
    return folder


def uploads(lake: Lake) -> list[str]:
    """Keys of the versions that have an incomplete upload."""
    return [upload.key.rpartition("/")[0] for upload in lake.uploads(lake.key(Stage.PARQUET))]


def commit(lake: Lake, path: Path, run_id: str) -> ParquetManifest:
    """Commit a version, as a run to which all others but `running` and `unknown` have ended."""
    manifest = parquet_manifest(path, new_version(run_id), run_id)
    known = {"running": True, "unknown": None}
    assert LakeWriter(lake, Run(run_id, run_id), lambda run: known.get(run, False)).commit(manifest, [path]) is None
    return manifest


def clean(*arguments: str, max_hours: str = "0.00001") -> tuple[int, str, str]:
    """Run the command; without hours, whatever was stored before this moment is old."""
    result = run("lake", "clean", *arguments, MAX_RUN_HOURS=max_hours)
    return result.returncode, result.stdout, result.stderr


def test_a_commit_removes_uploads_of_runs_that_have_ended(lake: Lake, path: Path) -> None:
    """Those of runs that go on, and of runs nobody knows, are spared, and so are other days."""
    folders = {run_id: begin_upload(lake, PARTITION, run_id) for run_id in ("ended", "running", "unknown", "ours")}
    other_day = begin_upload(lake, NEVER_COMMITTED, "ended")
    commit(lake, path, "ours")
    assert sorted(uploads(lake)) == sorted([folders["running"], folders["unknown"], other_day])


def test_the_command(lake: Lake, path: Path) -> None:
    """It lists what can go of every day, removes it when it is told to, and then finds nothing more."""
    visible = commit(lake, path, "committed")
    orphan = lake.key(Stage.PARQUET, PARTITION.path, new_version("killed"))
    lake.upload([path], orphan)
    never_committed = begin_upload(lake, NEVER_COMMITTED, "killed")
    lake.client.put_object(Bucket=lake.bucket, Key=lake.key(Stage.PARQUET, "build_id", "notes.txt"), Body=b"not ours")
    before = {found.key for found in lake.list(lake.key(Stage.PARQUET))}
    assert clean(max_hours="24")[:2] == (0, "0 leftover versions, 0.0 MB: nothing to do\n")
    status, output, _ = clean()
    first, second, summary = output.splitlines()
    assert f"{orphan}/: 1 objects, 0.0 MB, stored" in first
    assert f"{never_committed}/: 0 objects, 0.0 MB, 1 incomplete uploads" in second
    assert (status, summary) == (0, "2 leftover versions, 0.0 MB: can go: --delete removes them")
    assert {found.key for found in lake.list(lake.key(Stage.PARQUET))} == before
    assert clean("--delete")[1].endswith("2 leftover versions, 0.0 MB: removed\n")
    assert before - {found.key for found in lake.list(lake.key(Stage.PARQUET))} == {f"{orphan}/file"}
    assert uploads(lake) == []
    assert lake.read(ParquetManifest, PARTITION) == visible
    assert clean()[:2] == (0, "0 leftover versions, 0.0 MB: nothing to do\n")


def test_a_damaged_manifest(lake: Lake, path: Path) -> None:
    """What its day holds is left alone, as the manifest may name it, and said; other days are cleaned."""
    commit(lake, path, "committed")
    key = lake.key(Stage.PARQUET, PARTITION.path, MANIFEST)
    lake.client.put_object(Bucket=lake.bucket, Key=key, Body=b"{" * 100_000)
    begin_upload(lake, NEVER_COMMITTED, "killed")
    status, output, error = clean("--delete")
    assert status == 1
    assert output.endswith("1 leftover versions, 0.0 MB: removed\n")
    assert "1 manifests cannot be read, what lies beside them was left alone" in error
    assert f"{key}: damaged manifest" in error
    assert len(list(lake.list(lake.key(Stage.PARQUET, PARTITION.path)))) == 3
