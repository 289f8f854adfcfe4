"""The lake in S3: `{LAKE_URI}/{stage}/{type}/{YYYYMMDD}/manifest.json` names the files of one version beside it.

A version becomes visible when its manifest replaces the one before, and stays as it is from then on. Readers open the
manifest and nothing else, and check what they read against it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.lake.manifest import Manifest, Stage, StoredFile, describe
from mozagg2bq_assets.schema import AggregateType, ds_nodash

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MANIFEST = "manifest.json"
TRANSFERS = 8


@dataclass(frozen=True)
class Lake:
    """The objects below one S3 URI. Every method raises UserError where S3 cannot be reached or refuses."""

    client: "S3Client"
    bucket: str
    prefix: str

    @classmethod
    def at(cls, client: "S3Client", uri: str) -> "Lake":
        """The lake at `s3://bucket/prefix`. Raises UserError for any other form."""
        return cls(client, *_split(uri))

    def uri(self, manifest: Manifest) -> str:
        """Where a version's files lie."""
        folder = self._folder(manifest.stage, manifest.aggregate_type, manifest.day)
        return f"s3://{self.bucket}/{folder}/{manifest.version}/"

    def read_manifest(self, stage: Stage, aggregate_type: AggregateType, day: date) -> Manifest | None:
        """The manifest of that day's version, None where there is none. Raises DataError for a damaged one."""
        key = f"{self._folder(stage, aggregate_type, day)}/{MANIFEST}"
        with _errors(self.bucket):
            try:
                body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None
        return Manifest.from_json(body, f"s3://{self.bucket}/{key}")

    def commit(self, manifest: Manifest, files: Sequence[Path], is_running: Callable[[str], bool]) -> None:
        """Upload a version's files, then switch to it, then remove what no longer belongs to anybody.

        That is the version just replaced, and those left behind by runs that have ended: `is_running` says of a run id
        whether that run still goes on. Until the switch, readers see the version before.
        """
        version = self.version_key(manifest.stage, manifest.aggregate_type, manifest.day, manifest.version)
        with ThreadPoolExecutor(TRANSFERS) as pool:
            uploads = [pool.submit(self.upload, path, f"{version}/{path.name}") for path in files]
            for upload in uploads:
                upload.result()
        self.switch(manifest, is_running)

    def switch(self, manifest: Manifest, is_running: Callable[[str], bool]) -> None:
        """Make a version visible whose files are in the lake already, then remove what belongs to nobody any more."""
        key = f"{self._folder(manifest.stage, manifest.aggregate_type, manifest.day)}/{MANIFEST}"
        with _errors(self.bucket):
            self.client.put_object(Bucket=self.bucket, Key=key, Body=manifest.to_json().encode())
        self.clean_up(manifest, is_running)

    def upload(self, path: Path, key: str) -> None:
        """Store one file."""
        with _errors(self.bucket):
            self.client.upload_file(str(path), self.bucket, key)

    def version_key(self, stage: Stage, aggregate_type: AggregateType, day: date, version: str) -> str:
        """What the keys of a version's files begin with."""
        return f"{self._folder(stage, aggregate_type, day)}/{version}"

    def fetch(self, manifest: Manifest, directory: Path) -> list[Path]:
        """Download a version's files. Raises DataError unless each is there and exactly as the manifest says."""
        version = self.version_key(manifest.stage, manifest.aggregate_type, manifest.day, manifest.version)
        directory.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(TRANSFERS) as pool:
            return list(pool.map(lambda file: self.download(f"{version}/{file.name}", directory, file), manifest.files))

    def manifests(self, stage: Stage, aggregate_type: AggregateType) -> dict[date, Manifest | DataError]:
        """The manifest of every day, or what is wrong with it."""
        days = [day for key in self.objects(stage, aggregate_type) if (day := _day_of_manifest(key))]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            found = pool.map(lambda day: self._read_or_error(stage, aggregate_type, day), days)
        return {day: manifest for day, manifest in zip(days, found, strict=True) if manifest}

    def objects(self, stage: Stage, aggregate_type: AggregateType) -> dict[str, int]:
        """Every object of a stage: its key below the stage and type (`YYYYMMDD/…`), and its size in bytes."""
        root = self._folder(stage, aggregate_type) + "/"
        return {key.removeprefix(root): size for key, size in self._list(root)}

    def _read_or_error(self, stage: Stage, aggregate_type: AggregateType, day: date) -> Manifest | DataError | None:
        try:
            return self.read_manifest(stage, aggregate_type, day)
        except DataError as error:
            return error

    def download(self, key: str, directory: Path, expected: StoredFile) -> Path:
        """Fetch one file into a folder. Raises DataError unless it is there and exactly as expected."""
        path = directory / Path(key).name
        with _errors(self.bucket):
            try:
                self.client.download_file(self.bucket, key, str(path))
            except ClientError as error:
                if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                    raise DataError(f"s3://{self.bucket}/{key}: missing, though its manifest names it") from None
                raise
        if describe(path) != expected:
            raise DataError(f"s3://{self.bucket}/{key}: damaged, not as its manifest says")
        return path

    def _list(self, prefix: str) -> Iterator[tuple[str, int]]:
        with _errors(self.bucket):
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                yield from ((item["Key"], item["Size"]) for item in page.get("Contents", ()))

    def clean_up(self, manifest: Manifest, is_running: Callable[[str], bool]) -> None:
        """Remove what `commit` removes. A run that was killed between its switch and this has left it to the next."""
        folder = self._folder(manifest.stage, manifest.aggregate_type, manifest.day)
        doomed = []
        for key, _ in self._list(f"{folder}/"):
            version = key.removeprefix(f"{folder}/").split("/")[0]
            run_id = run_of(version)
            if version not in (MANIFEST, manifest.version) and (
                run_id == manifest.run.run_id or not is_running(run_id)
            ):
                doomed.append(key)
        with _errors(self.bucket):
            for key in doomed:
                self.client.delete_object(Bucket=self.bucket, Key=key)

    def _folder(self, *parts: Stage | AggregateType | date) -> str:
        names = [ds_nodash(part) if isinstance(part, date) else str(part) for part in parts]
        return "/".join([self.prefix, *names] if self.prefix else names)


def read_object(client: "S3Client", uri: str) -> bytes:
    """The object at an S3 URI. Raises UserError."""
    bucket, key = _split(uri)
    with _errors(bucket):
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()


@contextmanager
def _errors(bucket: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise UserError(
            f"S3, bucket {bucket}: {error}; check its name, AWS_ENDPOINT_URL and the AWS credentials"
        ) from error


def _split(uri: str) -> tuple[str, str]:
    match = re.fullmatch(r"s3://([^/]+)(?:/(.*?))?/?", uri)
    if match is None:
        raise UserError(f"not an S3 URI: {uri!r}; write it as s3://bucket/path")
    return match[1], match[2] or ""


def new_version(run_id: str) -> str:
    """A name for a new version, which says whose it is."""
    return f"{run_id}.{uuid4().hex[:8]}"


def run_of(version: str) -> str:
    """The id of the run that wrote a version."""
    return version.rpartition(".")[0]


def _day_of_manifest(key: str) -> date | None:
    """The day whose manifest this is; None for any other object."""
    match = re.fullmatch(rf"(\d{{8}})/{re.escape(MANIFEST)}", key)
    return date.fromisoformat(match[1]) if match else None
