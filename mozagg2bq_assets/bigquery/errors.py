"""What BigQuery's client raises, as errors of ours: where BigQuery is away or overloaded, and where it refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, RetryError, ServerError, TooManyRequests
from google.auth.exceptions import GoogleAuthError, TransportError
from requests.exceptions import InvalidSchema, InvalidURL, JSONDecodeError, MissingSchema, RequestException

from mozagg2bq_assets.errors import TOTAL_IS_TOO_LARGE, TransientError, UserError, brief

_OUT_OF_RANGE = re.compile(r"out of (int64 )?range|overflow|failed to cast", re.IGNORECASE)
_BAD_URL = (InvalidSchema, InvalidURL, MissingSchema)
# Why BigQuery may fail a job or refuse a request that it would take later. Not quotaExceeded: that is for a day.
_PASSING = {"backendError", "internalError", "rateLimitExceeded"}
_PASSING |= {"jobBackendError", "jobInternalError", "jobRateLimitExceeded"}
# A job or a session for an upload was there a moment ago, and has to be asked for again.
_VANISHED = ("not found: job", "/upload/bigquery/")


@contextmanager
def bigquery_errors(what: str) -> Iterator[None]:
    """TransientError or UserError in place of what BigQuery's client raises."""
    try:
        yield
    except (GoogleAPIError, GoogleAuthError, RequestException) as error:
        # What the client has met at last, when it has tried again in vain.
        last = (error.cause if isinstance(error, RetryError) else None) or error
        if _is_transient(error):
            raise TransientError(f"BigQuery, {what}, is away or overloaded: {_reason(last)}{_place(last)}") from error
        raise UserError(f"BigQuery, {what}: {_reason(last)}; {_remedy(last)}") from error


def _reason(error: Exception) -> str:
    """The cause, in a line. Google's client tells of a lost connection in a paragraph that has the error's number."""
    if isinstance(error, JSONDecodeError):
        return "its answer is no JSON"
    text = re.sub(r"^[A-Z]+ https?://\S+: ", "", str(getattr(error, "message", None) or error))
    number = re.search(r"\[Errno -?\d+\] [\w ]+", text)
    return number[0] if number else brief(text)


def _place(error: Exception) -> str:
    """Where the request has gone, if that is known and not Google."""
    # If fetching a token failed, the request's error is the cause of the exception.
    failed = next((each for each in (error, error.__cause__) if isinstance(each, RequestException)), None)
    host = urlsplit((failed.request.url if failed and failed.request else None) or "").netloc
    return f", at {host}: check BIGQUERY_EMULATOR_HOST" if host and not host.endswith("googleapis.com") else ""


def _remedy(error: Exception) -> str:
    if isinstance(error, GoogleAPICallError) and any(each.get("reason") == "quotaExceeded" for each in error.errors):
        return "a quota is used up: ask for more, or try again tomorrow"
    if isinstance(error, GoogleAPICallError) and _OUT_OF_RANGE.search(str(error)):
        return TOTAL_IS_TOO_LARGE
    if isinstance(error, _BAD_URL):
        return "check BIGQUERY_EMULATOR_HOST"
    if isinstance(error, GoogleAuthError):
        return "check GOOGLE_APPLICATION_CREDENTIALS"
    return "check BIGQUERY_PROJECT, BIGQUERY_DATASET and the account's rights"


def _is_transient(error: Exception) -> bool:
    """Whether BigQuery was away or overloaded, rather than refusing."""
    if isinstance(error, GoogleAPICallError) and any(each.get("reason") in _PASSING for each in error.errors):
        return True
    if isinstance(error, _BAD_URL):
        return False
    if isinstance(error, GoogleAuthError) and error.retryable:
        return True
    gone = isinstance(error, GoogleAPICallError) and error.code in (404, 410)
    if gone and any(text in str(error).lower() for text in _VANISHED):
        return True
    return isinstance(error, RequestException | RetryError | ServerError | TooManyRequests | TransportError)
