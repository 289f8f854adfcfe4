"""Runs that write to one lake at the same time, and what each of them removes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.lake.manifest import ParquetManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets_tests.helpers.manifests import PARTITION, parquet_manifest


def unknown(_: str) -> None:
    """What an instance says of the runs of another."""
    return


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    return path


def writer(lake: Lake, run_id: str) -> LakeWriter:
    """A run of an instance that knows no other."""
    return LakeWriter(lake, Run(run_id, run_id), unknown)


def commit(lake: Lake, path: Path, run_id: str) -> ParquetManifest:
    """Commit one file as a new version."""
    manifest = parquet_manifest(path, new_version(run_id), run_id)
    writer(lake, run_id).commit(manifest, [path])
    return manifest


def versions(lake: Lake) -> set[str]:
    """The versions that have files."""
    folder = lake.key(Stage.PARQUET, PARTITION.path) + "/"
    return {found.key.removeprefix(folder).split("/")[0] for found in lake.list(folder)} - {"manifest.json"}


def test_uploads_of_a_writer_of_another_instance(lake: Lake, path: Path) -> None:
    """They are spared while it may still publish them; a version that was replaced goes at once, whoever made it."""
    theirs = parquet_manifest(path, new_version("theirs"), "theirs")
    lake.upload([path], lake.key(Stage.PARQUET, PARTITION.path, theirs.version))
    ours = commit(lake, path, "ours")
    assert versions(lake) == {ours.version, theirs.version}
    writer(lake, "theirs").commit(theirs, [])
    assert versions(lake) == {theirs.version}
    assert lake.read(ParquetManifest, PARTITION) == theirs


def test_uploads_that_nobody_can_publish_any_more(lake: Lake, path: Path) -> None:
    """Twice the time that a run may take after they were stored, they go."""
    lake.upload([path], lake.key(Stage.PARQUET, PARTITION.path, new_version("theirs")))
    ours = commit(lake, path, "ours")
    assert len(versions(lake)) == 2
    replace(writer(lake, "ours"), max_hours=1e-9).clean_up(ours)
    assert versions(lake) == {ours.version}


def test_another_run_commits_before_the_clean_up(lake: Lake, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is visible after the listing is spared; our own version, which was replaced, goes."""
    publish = Lake.publish
    overtaken: list[ParquetManifest] = []

    def publish_and_be_overtaken(self: Lake, manifest: ParquetManifest) -> None:
        publish(self, manifest)
        if manifest.run.run_id == "ours":
            overtaken.append(commit(lake, path, "theirs"))

    monkeypatch.setattr(Lake, "publish", publish_and_be_overtaken)
    commit(lake, path, "ours")
    assert lake.read(ParquetManifest, PARTITION) == overtaken[0]
    assert versions(lake) == {overtaken[0].version}


def test_a_run_that_takes_too_long(lake: Lake, path: Path) -> None:
    """It does not publish, and says what to do; the version before stays."""
    before = commit(lake, path, "before")
    late = replace(writer(lake, "late"), started_at=datetime.now(UTC) - timedelta(hours=25))
    with pytest.raises(UserError, match=r"more than 24 hours.*PARTITIONS_PER_RUN.*MAX_RUN_HOURS"):
        late.commit(parquet_manifest(path, new_version("late"), "late"), [path])
    assert lake.read(ParquetManifest, PARTITION) == before


def test_files_that_are_gone_before_they_are_published(lake: Lake, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is not put, and the version before stays."""
    before = commit(lake, path, "before")
    upload = Lake.upload

    def upload_and_lose(self: Lake, paths: Sequence[Path], folder: str) -> None:
        upload(self, paths, folder)
        self.delete([f"{folder}/{paths[0].name}"])

    monkeypatch.setattr(Lake, "upload", upload_and_lose)
    with pytest.raises(DataError, match="file: is not there, or has another size, though it was just stored"):
        commit(lake, path, "ours")
    assert lake.read(ParquetManifest, PARTITION) == before


def test_clean_up_stays_in_its_folder(lake: Lake, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lists other keys than it was asked for loses none of them."""
    ours = commit(lake, path, "ours")
    other = lake.key(Stage.PARQUET, "build_id/20191202", new_version("other"))
    lake.upload([path], other)
    original = Lake.list
    monkeypatch.setattr(Lake, "list", lambda self, prefix: original(self, prefix[: -len("20191201/")]))
    LakeWriter(lake, Run("ours", "ours"), lambda _: False).clean_up(ours)
    monkeypatch.undo()
    assert [found.key for found in lake.list(other)] == [f"{other}/file"]
