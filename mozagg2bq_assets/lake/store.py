"""The lake in S3: `{LAKE_URI}/{stage}/{type}/{YYYYMMDD}/manifest.json` names the files of one version beside it.

A version becomes visible when its manifest replaces the one before, and stays as it is from then on. Readers find files
by the manifest alone, and check every byte against it. All transfers of the lake are here.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from botocore.exceptions import ClientError

from mozagg2bq_assets.errors import Attempt, DataError, OperatorError, UserError, machine_errors
from mozagg2bq_assets.lake.manifest import AnyManifest, DamagedVersion, StageManifest
from mozagg2bq_assets.lake.objects import s3_client, s3_errors, split_uri
from mozagg2bq_assets.model.files import StoredFile, describe
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage, parse_ds_nodash
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import LakeSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef

MANIFEST = "manifest.json"
TRANSFERS = 8
DELETED_AT_ONCE = 1000  # S3 takes no more


class ListedObject(NamedTuple):
    """An object as a listing shows it: full key, size in bytes, when it was stored, and the ETag of its content."""

    key: str
    size: int
    stored_at: datetime
    etag: str


class IncompleteUpload(NamedTuple):
    """An upload in parts that was begun and not completed; its parts are stored, and no listing shows them."""

    key: str
    upload_id: str
    started_at: datetime


@dataclass(frozen=True)
class Lake:
    """The objects below one S3 URI. Methods raise UserError where S3 refuses, TransientError where it is away."""

    settings: LakeSettings
    client: "S3Client" = field(default_factory=s3_client, repr=False)

    @cached_property
    def bucket(self) -> str:
        """The bucket's name."""
        return split_uri(self.settings.uri)[0]

    @cached_property
    def prefix(self) -> str:
        """What its keys begin with; may be empty."""
        return split_uri(self.settings.uri)[1]

    @cached_property
    def _encryption(self) -> dict[str, Any]:
        """Arguments of boto3 for all that is stored."""
        chosen = {"ServerSideEncryption": self.settings.encryption, "SSEKMSKeyId": self.settings.kms_key_id}
        return {name: value for name, value in chosen.items() if value}

    def key(self, stage: Stage, *below: str) -> str:
        """A key below a stage's folder: its type, `YYYYMMDD`, version and file name, as many of them as are given."""
        return "/".join([*([self.prefix] if self.prefix else []), stage, *below])

    def uri(self, manifest: StageManifest) -> str:
        """Where a version's files lie."""
        return f"s3://{self.bucket}/{self.key(manifest.of, manifest.partition.path, manifest.version)}/"

    def read(self, kind: type[AnyManifest], partition: Partition) -> AnyManifest | None:
        """The manifest of a partition's stage, None where there is none.

        Raises DamagedVersion where two reads find it damaged or of another partition: one answer may have been cut.
        """
        try:
            return self._read(kind, partition)
        except (DamagedVersion, UserError):  # a 404 that was cut lacks S3's code, so it looks like a refusal
            return self._read(kind, partition)

    def read_version(self, kind: type[AnyManifest], partition: Partition, version: str) -> AnyManifest:
        """The manifest that lies beside a version's files. Raises DataError where there is none, or it is damaged."""
        manifest = self._read(kind, partition, version, MANIFEST)
        if manifest is None:
            raise DataError(f"{kind.of} of {partition} has no version {version}: see `mozagg2bq lake list`")
        return manifest

    def _read(self, kind: type[AnyManifest], partition: Partition, *place: str) -> AnyManifest | None:
        key = self.key(kind.of, partition.path, *(place or (MANIFEST,)))
        with s3_errors(self.bucket):
            try:
                body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None
        try:
            manifest = kind.from_json(body, f"s3://{self.bucket}/{key}")
            if manifest.partition != partition:
                raise DataError(f"s3://{self.bucket}/{key}: damaged manifest: it is that of {manifest.partition}")
        except DataError as error:
            raise DamagedVersion(str(error), partition, kind.of) from error
        return cast(AnyManifest, manifest)

    def manifests(
        self, kind: type[AnyManifest], aggregate_type: AggregateType, objects: Iterable[str], wanted: DayRange
    ) -> dict[date, Attempt[AnyManifest]]:
        """The manifest of each wanted day that has one, or what is wrong with it; `objects` has keys below
        the folder of the stage and type (`YYYYMMDD/…`)."""
        days = [day for key in objects if (day := day_of_manifest(key)) and day in wanted]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            found = pool.map(lambda day: self.read_or_error(kind, Partition(aggregate_type, day)), days)
        return {day: manifest for day, manifest in zip(days, found, strict=True) if manifest}

    def objects(self, stage: Stage, aggregate_type: AggregateType) -> dict[str, int]:
        """Every object of a stage: its key below the stage and type (`YYYYMMDD/…`), and its size in bytes."""
        root = self.key(stage, aggregate_type) + "/"
        return {found.key.removeprefix(root): found.size for found in self.list(root)}

    def fetch(self, manifest: StageManifest, directory: Path, only: Sequence[str] | None = None) -> list[Path]:
        """Download a version's files, or those of some names alone.

        Raises DamagedVersion unless each is there and exactly as the manifest says.
        """
        folder = self.key(manifest.of, manifest.partition.path, manifest.version)
        files = [file for file in manifest.files if only is None or file.name in only]
        directory.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(TRANSFERS) as pool:
            try:
                return list(pool.map(lambda file: self.download(f"{folder}/{file.name}", directory, file), files))
            except DataError as error:
                raise DamagedVersion(str(error), manifest.partition, manifest.of) from error

    def download(self, key: str, directory: Path, expected: StoredFile) -> Path:
        """Fetch one file into a folder.

        Raises DataError unless it is there and, at the second try at the latest, exactly as expected.
        """
        for _ in range(2):
            path = self._download(key, directory)
            if describe(path) == expected:
                return path
        raise DataError(f"s3://{self.bucket}/{key}: damaged, not as its manifest says")

    def _download(self, key: str, directory: Path) -> Path:
        path = directory / Path(key).name
        with s3_errors(self.bucket), machine_errors():
            try:
                self.client.download_file(self.bucket, key, str(path))
            except ClientError as error:
                if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                    raise DataError(f"s3://{self.bucket}/{key}: missing, though its manifest names it") from None
                raise
        return path

    def upload(self, paths: Sequence[Path], folder: str) -> None:
        """Store files under their names in a folder, some at once."""
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for upload in [pool.submit(self._upload, path, f"{folder}/{path.name}") for path in paths]:
                upload.result()

    def complete(self, manifest: StageManifest) -> None:
        """Store a version's manifest beside its files, so that it can be listed, and made current again, later."""
        self._put(manifest, manifest.version, MANIFEST)

    def missing_file(self, manifest: StageManifest, listed: Iterable[ListedObject]) -> str | None:
        """The key of a version's first file that a listing lacks, or shows with another size; None for no such."""
        stored = {found.key: found.size for found in listed}
        for file in manifest.files:
            key = self.key(manifest.of, manifest.partition.path, manifest.version, file.name)
            if stored.get(key) != file.size:
                return key
        return None

    def publish(self, manifest: StageManifest) -> None:
        """Make a version current whose files are there."""
        self._put(manifest, MANIFEST)

    def _put(self, manifest: StageManifest, *place: str) -> None:
        key = self.key(manifest.of, manifest.partition.path, *place)
        with s3_errors(self.bucket):
            self.client.put_object(Bucket=self.bucket, Key=key, Body=manifest.to_json().encode(), **self._encryption)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key begins so."""
        with s3_errors(self.bucket):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield ListedObject(item["Key"], item["Size"], item["LastModified"], item["ETag"])

    def uploads(self, prefix: str) -> Iterator[IncompleteUpload]:
        """Every incomplete upload whose key begins with the prefix."""
        # rclone answers NoSuchUpload until there has been one.
        with s3_errors(self.bucket), suppress(self.client.exceptions.NoSuchUpload):
            pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Uploads", ()):
                    yield IncompleteUpload(item["Key"], item["UploadId"], item["Initiated"])

    def abort(self, uploads: Iterable[IncompleteUpload]) -> None:
        """Remove the parts of uploads. One that is gone already is no error."""
        for upload in uploads:
            with s3_errors(self.bucket), suppress(self.client.exceptions.NoSuchUpload):
                self.client.abort_multipart_upload(Bucket=self.bucket, Key=upload.key, UploadId=upload.upload_id)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, a thousand with each request. One that is gone already is no error."""
        for batch in _batched(keys, DELETED_AT_ONCE):
            objects: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in batch]
            with s3_errors(self.bucket):
                answer = self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True})
            if errors := answer.get("Errors"):
                raise UserError(
                    f"S3, bucket {self.bucket}: {len(errors)} of {len(batch)} objects were not deleted, the first,"
                    f" {errors[0].get('Key')}, for {errors[0].get('Code')}; check the account's rights"
                )

    def _upload(self, path: Path, key: str) -> None:
        with s3_errors(self.bucket):
            self.client.upload_file(str(path), self.bucket, key, ExtraArgs=self._encryption)

    def read_or_error(self, kind: type[AnyManifest], partition: Partition) -> Attempt[AnyManifest] | None:
        """As `read`, with an error as a value."""
        try:
            return self.read(kind, partition)
        except OperatorError as error:
            return error


def _batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of so many items, as itertools.batched of Python 3.12."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def day_of_manifest(key: str) -> date | None:
    """The day whose manifest this is; None for any other object."""
    folder, _, name = key.partition("/")
    return parse_ds_nodash(folder) if name == MANIFEST else None
