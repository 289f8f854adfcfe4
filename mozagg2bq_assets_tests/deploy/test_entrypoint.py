"""The image's entrypoint: secrets come as files."""

import os
import subprocess
from pathlib import Path

from mozagg2bq_assets_tests.helpers.compose import DEPLOY


def environment_of(**variables: str) -> dict[str, str]:
    """What a command sees that the entrypoint runs."""
    result = subprocess.run(
        (str(DEPLOY / "entrypoint"), "env", "-0"),
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in result.stdout.split("\0") if line)


def test_secrets(tmp_path: Path) -> None:
    """A file's content, whatever characters it has, and of no other file than those that are secrets of ours."""
    (tmp_path / "secret").write_text('it\'s $HOME `id` "x"\n')
    path = str(tmp_path / "secret")
    seen = environment_of(POSTGRES_PASS="", POSTGRES_PASS_FILE=path, SSL_CERT_FILE=path)
    assert seen["POSTGRES_PASS"] == 'it\'s $HOME `id` "x"'
    assert "SSL_CERT" not in seen


def test_empty_files(tmp_path: Path) -> None:
    """They stand for what is not needed: other ways to give it count."""
    (tmp_path / "empty").touch()
    path = str(tmp_path / "empty")
    seen = environment_of(POSTGRES_PASS="x", POSTGRES_PASS_FILE=path, GOOGLE_APPLICATION_CREDENTIALS=path)
    assert seen["POSTGRES_PASS"] == "x"
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in seen


def test_bucket() -> None:
    """Logs lie where the lake lies."""
    assert environment_of(LAKE_URI="s3://bucket/some/prefix")["DAGSTER_LOGS_BUCKET"] == "bucket"
    assert environment_of(LAKE_URI="s3://bucket")["DAGSTER_LOGS_BUCKET"] == "bucket"
