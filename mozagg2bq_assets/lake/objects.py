"""S3's client, its URIs, and its errors as one line. Transfers are in `store`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as S3ConnectionError

from mozagg2bq_assets.errors import TransientError, UserError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client() -> "S3Client":
    """S3 as the standard AWS variables say; the one client of the project."""
    import boto3

    # We check what we read by ourselves. botocore's own check wraps the body of an answer 500 too, and then fails with
    # AttributeError ('StreamingChecksumBody' object has no attribute 'strip'), where it would have tried again.
    return boto3.client("s3", config=Config(response_checksum_validation="when_required"))


def read_object(client: "S3Client", uri: str) -> bytes:
    """The object at an S3 URI. Raises UserError or TransientError."""
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
    """TransientError or UserError in place of whatever boto3 raises, after the tries that it makes by itself."""
    try:
        yield
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        kind = TransientError if _is_transient(error) else UserError
        raise kind(f"S3, bucket {bucket}: {error}; check its name, AWS_ENDPOINT_URL and the AWS credentials") from error


def _is_transient(error: BaseException) -> bool:
    """Whether S3 was away or overloaded, rather than refusing. A failed upload has its reason as its context."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in (429, 500, 502, 503, 504)
    if isinstance(error, S3UploadFailedError):
        return error.__context__ is not None and _is_transient(error.__context__)
    return isinstance(error, S3ConnectionError | HTTPClientError)
