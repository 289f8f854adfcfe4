"""S3's client, its URIs, its errors as one line, and reading one object. The lake's transfers are in `store`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as S3ConnectionError
from botocore.parsers import ResponseParserError

from mozagg2bq_assets.errors import TransientError, UserError, brief

CONNECTIONS = 128  # beyond these, each request would open a connection of its own, and close it

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client() -> "S3Client":
    """S3 as the standard AWS variables say; the one client of the project. Raises UserError where they are bad."""
    # We check what we read by ourselves. botocore's own check wraps the body of an answer 500 too, and then fails with
    # AttributeError ('StreamingChecksumBody' object has no attribute 'strip'), where it would have tried again.
    config = Config(
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 5},
        max_pool_connections=CONNECTIONS,
    )
    try:
        return boto3.client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise UserError(f"S3: {brief(str(error))}; check the variables AWS_*") from error


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
    except (BotoCoreError, ClientError, Boto3Error, ResponseParserError) as error:
        if _is_transient(error):
            raise TransientError(f"S3, bucket {bucket}, is away or overloaded: {_reason(error)}") from error
        remedy = "check its name, AWS_ENDPOINT_URL and the AWS credentials"
        raise UserError(f"S3, bucket {bucket}: {_reason(error)}; {remedy}") from error


# Error codes that may come with a status outside 5xx, for requests that S3 would accept later.
_PASSING = {"RequestTimeout", "SlowDown", "OperationAborted", "Throttling", "ThrottlingException"}


def _is_transient(error: BaseException) -> bool:
    """Whether S3 was away or overloaded, or its answer was cut, rather than refusing.

    A failed upload has its reason as its context. RetriesExceededError means that each try of a download was cut.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in (429, 500, 502, 503, 504) or error.response.get("Error", {}).get("Code") in _PASSING
    if isinstance(error, S3UploadFailedError):
        return error.__context__ is not None and _is_transient(error.__context__)
    away = (S3ConnectionError, HTTPClientError, IncompleteReadError, RetriesExceededError, ResponseParserError)
    return isinstance(error, away)


def _reason(error: BaseException) -> str:
    """The reason alone, in a line: boto3's own message hides that of a download, and is long for an upload."""
    cause = error.__context__ if isinstance(error, S3UploadFailedError) else getattr(error, "last_exception", None)
    return brief(str(cause or error))
