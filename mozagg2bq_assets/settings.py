"""Settings, a class for each service: the only place that reads the project's own variables.

One that has no default and is not set is an error. Nothing is built here: who needs a service passes its settings to
the room that knows it.
"""

import os
from dataclasses import dataclass, field
from datetime import date

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import parse_day

CREDENTIALS_URI = "POSTGRES_CREDENTIALS_S3_URI"
CREDENTIALS = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS")
_ALWAYS = ("POSTGRES_HOST", "LAKE_URI", "BIGQUERY_PROJECT", "BIGQUERY_DATASET")


def missing() -> list[str]:
    """Names of the variables that the whole pipeline needs and that are not set."""
    names = _ALWAYS if os.environ.get(CREDENTIALS_URI) else (*_ALWAYS, *CREDENTIALS)
    return [name for name in names if not os.environ.get(name)]


def required(name: str) -> str:
    """The value of a variable. Raises UserError where it is not set."""
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name} is not set: the README lists every variable; `make dev` needs none")
    return value


@dataclass(frozen=True)
class PostgresSettings:
    """The source. Database, user and password are None where the object at `credentials_uri` holds them."""

    host: str
    port: str
    credentials_uri: str | None
    dbname: str | None
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def read(cls) -> "PostgresSettings":
        """Raises UserError where a variable is missing."""
        host, port = required("POSTGRES_HOST"), os.environ.get("POSTGRES_PORT") or "5432"
        if uri := os.environ.get(CREDENTIALS_URI):
            return cls(host, port, uri, None, None, None)
        return cls(host, port, None, *(required(name) for name in CREDENTIALS))


@dataclass(frozen=True)
class LakeSettings:
    """Where the lake lies: `s3://bucket/prefix`. Credentials and endpoint are boto3's own: AWS_*."""

    uri: str

    @classmethod
    def read(cls) -> "LakeSettings":
        """Raises UserError where LAKE_URI is missing."""
        return cls(required("LAKE_URI"))


@dataclass(frozen=True)
class BigQuerySettings:
    """Where the tables are. Credentials and emulator are the client's own: GOOGLE_*, BIGQUERY_EMULATOR_HOST."""

    project: str
    dataset: str

    @classmethod
    def read(cls) -> "BigQuerySettings":
        """Raises UserError where a variable is missing."""
        return cls(required("BIGQUERY_PROJECT"), required("BIGQUERY_DATASET"))


@dataclass(frozen=True)
class SparkSettings:
    """The cluster, and the package with all it needs where the executors do not have it."""

    master: str
    archive: str | None

    @classmethod
    def read(cls) -> "SparkSettings":
        """Raises UserError where SPARK_ARCHIVE names no file."""
        archive = os.environ.get("SPARK_ARCHIVE") or None
        if archive and not os.path.isfile(archive):
            raise UserError(f"SPARK_ARCHIVE: {archive}: no such file; `make spark-archive` makes it")
        return cls(os.environ.get("SPARK_MASTER") or "local[*]", archive)


def engine() -> str:
    """What turns dumps into Parquet where nobody says otherwise: TRANSFORM_ENGINE."""
    return os.environ.get("TRANSFORM_ENGINE") or "duckdb"


def max_run_hours() -> float:
    """Hours after which a run may no longer commit. Raises UserError."""
    text = os.environ.get("MAX_RUN_HOURS") or "24"
    try:
        if float(text) > 0:
            return float(text)
    except ValueError:
        pass
    raise UserError(f"MAX_RUN_HOURS is {text!r}: a number of hours above 0")


def outage_patience() -> float:
    """Seconds that a run's step pauses for together, while a service is away. Raises UserError."""
    text = os.environ.get("OUTAGE_PATIENCE_SECONDS") or "900"
    if not text.isdecimal():
        raise UserError(f"OUTAGE_PATIENCE_SECONDS is {text!r}: a whole number of seconds")
    return float(text)


def partitions_start() -> date:
    """First day of the partitions. Raises UserError."""
    return parse_day(os.environ.get("PARTITIONS_START") or "2015-06-01")


def partitions_per_run() -> int:
    """Days that one run of a backfill takes. Raises UserError."""
    text = os.environ.get("PARTITIONS_PER_RUN") or "10"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"PARTITIONS_PER_RUN is {text!r}: a number from 1")
    return int(text)
