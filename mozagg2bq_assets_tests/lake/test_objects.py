"""S3's errors, from an HTTP server that answers as S3 does when it is away, overloaded or refuses."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from mozagg2bq_assets.errors import OperatorError, TransientError, UserError
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.settings import LakeSettings

ANSWER = "<Error><Code>{code}</Code><Message>said so</Message></Error>"


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that answers every request so; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = ANSWER.format(code=code).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def lake_at(url: str) -> Lake:
    """A lake there, whose client does not try again."""
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
    session = boto3.Session(aws_access_key_id="a" * 20, aws_secret_access_key="b" * 40, region_name="us-east-1")
    return Lake(LakeSettings.read(uri="s3://bucket/lake"), session.client("s3", endpoint_url=url, config=config))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", TransientError),
        (500, "InternalError", TransientError),
        (429, "TooManyRequests", TransientError),
        (403, "AccessDenied", UserError),
        (404, "NoSuchBucket", UserError),
    ],
)
def test_refused_or_away(status: int, code: str, kind: type[OperatorError], tmp_path: Path) -> None:
    """Listing, and uploading, whose errors come in another form, say of which kind the answer was."""
    (tmp_path / "file").write_text("x")
    with answering(status, code) as url:
        for attempt in (
            lambda: list(lake_at(url).list("")),
            lambda: lake_at(url).upload([tmp_path / "file"], "folder"),
        ):
            with pytest.raises(OperatorError) as raised:
                attempt()
            assert type(raised.value) is kind
            assert code in str(raised.value)


def test_nobody_listens() -> None:
    """A closed port is transient."""
    with pytest.raises(TransientError, match="Could not connect"):
        list(lake_at("http://127.0.0.1:1").list(""))
