"""S3 itself: its client, its URIs, and its errors as one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError

from mozagg2bq_assets.errors import UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client() -> "S3Client":
    """S3 as the standard AWS variables say."""
    import boto3

    return boto3.client("s3")


def read_object(client: "S3Client", uri: str) -> bytes:
    """The object at an S3 URI. Raises UserError."""
    bucket, key = split_uri(uri)
    with s3_errors(bucket):
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`, whose key may be empty. Raises UserError for any other form."""
    match = re.fullmatch(r"s3://([^/]+)(?:/(.*?))?/?", uri)
    if match is None:
        raise UserError(f"not an S3 URI: {uri!r}; write it as s3://bucket/path")
    return match[1], match[2] or ""


@contextmanager
def s3_errors(bucket: str) -> Iterator[None]:
    """UserError in place of whatever boto3 raises."""
    try:
        yield
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise UserError(
            f"S3, bucket {bucket}: {error}; check its name, AWS_ENDPOINT_URL and the AWS credentials"
        ) from error
