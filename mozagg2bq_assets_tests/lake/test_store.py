"""Versions in the lake: committed or absent, checked byte by byte, and cleaned up after."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from botocore.awsrequest import AWSPreparedRequest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.manifest import (
    MANIFESTS,
    DumpManifest,
    ParquetManifest,
    StageManifest,
    _checksum,
)
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets.settings import LakeSettings
from mozagg2bq_assets_tests.helpers.manifests import PARTITION, TYPE, parquet_manifest
from mozagg2bq_assets_tests.helpers.proxies import HttpProxy

FOLDER = f"{Stage.PARQUET}/{TYPE}/20191201"


def commit(lake: Lake, path: Path, run_id: str, running: frozenset[str] = frozenset()) -> ParquetManifest:
    """Commit one file as a new version."""
    manifest = parquet_manifest(path, new_version(run_id), run_id)
    LakeWriter(lake, manifest.run, running.__contains__).commit(manifest, [path])
    return manifest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to store."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    return path


def test_round_trip(lake: Lake, path: Path, tmp_path: Path) -> None:
    """What is committed is read back, and the version before is gone."""
    assert lake.read(ParquetManifest, PARTITION) is None
    commit(lake, path, "first")
    second = commit(lake, path, "second")
    assert lake.read(ParquetManifest, PARTITION) == second
    objects, wanted = lake.objects(Stage.PARQUET, TYPE), DayRange(PARTITION.day, date(2019, 12, 2))
    assert lake.manifests(ParquetManifest, TYPE, objects, wanted) == {PARTITION.day: second}
    assert lake.fetch(second, tmp_path / "out")[0].read_bytes() == path.read_bytes()
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 3


def test_what_a_run_left_behind(lake: Lake, path: Path) -> None:
    """Files without a manifest are invisible; they stay while their run goes on, and go once it has ended."""
    first = commit(lake, path, "first")
    lake.client.upload_file(str(path), lake.bucket, f"{lake.prefix}/{FOLDER}/{new_version('crashed')}/file")
    assert lake.read(ParquetManifest, PARTITION) == first
    commit(lake, path, "second", frozenset({"crashed"}))
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 4
    commit(lake, path, "third")
    assert len(lake.objects(Stage.PARQUET, TYPE)) == 3


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
    manifest = parquet_manifest(path, "v", "r")
    text = manifest.to_json().encode()
    assert ParquetManifest.from_json(text, "here") == manifest
    for position in range(len(text)):
        changed = bytearray(text)
        changed[position] ^= 1
        try:
            found = ParquetManifest.from_json(bytes(changed), "here")
        except DataError as error:
            assert str(error).startswith("here: damaged manifest")  # noqa: PT017
        else:
            assert found == manifest


@pytest.mark.parametrize("kind", MANIFESTS)
def test_manifests_of_the_first_version(kind: type[StageManifest]) -> None:
    """Those that version 0.1.0 wrote, before they were models, are read as they were meant."""
    text = Path(__file__).with_name("manifests").joinpath(f"{kind.of}.json").read_bytes()
    manifest = kind.from_json(text, "here")
    assert manifest.rows.total == 15
    assert manifest.committed_at == datetime(2026, 11, 25, 6, 0, 1, 2345, UTC)
    assert manifest.run.backfill_id == "qwertyui"
    assert kind.from_json(manifest.to_json().encode(), "here") == manifest
    if isinstance(manifest, DumpManifest):
        assert manifest.details.rows_in_snapshot == manifest.rows
        assert manifest.rows.by_channel() == {"nightly 73": 12, "beta 72": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "raw_dump"}, "stage: Input should be"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"rows": {"nightly 73": -1}}, "rows.nightly 73: Input should be greater than or equal to 0"),
        ({"day": "2019-13-01"}, "day: Input should be a valid date"),
        ({"details": {}}, "details.raw_dump: Field required"),
        ({"version": "../../other"}, "version: String should match pattern"),
        ({"version": ".."}, "version: String should match pattern"),
        ({"files": [{"name": "../toc.dat", "size": 1, "sha256": "0" * 64}]}, "files.0: Value error, not a file"),
        ({"files": [{"name": "a/b", "size": 1, "sha256": "0" * 64}]}, "files.0: Value error, not a file"),
        ({"files": [{"name": "a", "size": -1, "sha256": "0" * 64}]}, "files.0: Value error, not a file"),
        ({"x" * 100_000: 1}, "x" * 100),
    ],
)
def test_manifest_that_is_not_one(path: Path, change: dict[str, object], message: str) -> None:
    """A manifest whose checksum is right, and that is not what its stage's are, is refused in one line."""
    values = {**json.loads(parquet_manifest(path, "v", "r").to_json()), **change}
    del values["sha256"]
    text = json.dumps({"sha256": _checksum(values), **values})
    with pytest.raises(DataError) as raised:
        ParquetManifest.from_json(text.encode(), "here")
    assert str(raised.value).startswith(f"here: damaged manifest: {message}")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400


def test_manifest_of_another_day(lake: Lake, path: Path) -> None:
    """One that somebody has copied to another day's folder is refused there."""
    manifest = commit(lake, path, "first")
    other = Partition(TYPE, date(2019, 12, 2))
    key = f"{lake.key(Stage.PARQUET, other.path)}/manifest.json"
    lake.client.put_object(Bucket=lake.bucket, Key=key, Body=manifest.to_json().encode())
    with pytest.raises(DataError, match="damaged manifest: it is that of build_id 20191201"):
        lake.read(ParquetManifest, other)


def test_no_manifest_and_a_cut_answer(lake: Lake, s3: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer 404 that is cut lacks S3's code, and looks like a refusal; it is asked for again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    cut = [5]
    s3.fault = lambda _, real: real()._replace(cut=cut.pop()) if cut else None
    assert Lake(LakeSettings.read()).read(ParquetManifest, PARTITION) is None
    assert len(s3.requests) == 2


def test_encryption_is_asked_for(lake: Lake, path: Path, tmp_path: Path) -> None:
    """For small files, large ones, which go in parts, and manifests. The embedded S3 server encrypts nothing."""
    settings = LakeSettings.read(encryption="aws:kms", kms_key_id="a-key")
    encrypted, asked = Lake(settings), list[tuple[str, str]]()

    def note(request: AWSPreparedRequest, **_: object) -> None:
        if request.method in ("PUT", "POST") and "partNumber" not in request.url and "uploadId" not in request.url:
            headers = {name.lower(): str(value) for name, value in request.headers.items()}
            assert "a-key" in headers["x-amz-server-side-encryption-aws-kms-key-id"]
            asked.append((request.method, headers["x-amz-server-side-encryption"]))

    encrypted.client.meta.events.register("before-send.s3", note)
    large = tmp_path / "large"
    large.write_bytes(bytes(9 * 2**20))
    encrypted.upload([path, large], f"{lake.prefix}/somewhere")
    encrypted.publish(parquet_manifest(path, "ours.1", "ours"))
    assert sorted(method for method, _ in asked) == ["POST", "PUT", "PUT"]
    assert all("aws:kms" in kind for _, kind in asked)
