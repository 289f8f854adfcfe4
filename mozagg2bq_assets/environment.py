"""The environment: its variables and what is built from them. What is not set is an error, never a guess.

Clients are imported by the function that makes one, since each takes longer to import than a small day to convert.
"""

import json
import os
from datetime import date
from typing import TYPE_CHECKING

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.schema import parse_day

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from mozagg2bq_assets.lake.store import Lake
    from mozagg2bq_assets.pgdump.source import Postgres
    from mozagg2bq_assets.warehouse.bigquery import Warehouse

ENGINES = ("duckdb", "spark")
CREDENTIALS_URI = "POSTGRES_CREDENTIALS_S3_URI"
_CREDENTIALS = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS")
_ALWAYS = ("POSTGRES_HOST", "LAKE_URI", "BIGQUERY_PROJECT", "BIGQUERY_DATASET")


def missing() -> list[str]:
    """Names of the variables that the whole pipeline needs and that are not set."""
    names = _ALWAYS if os.environ.get(CREDENTIALS_URI) else (*_ALWAYS, *_CREDENTIALS)
    return [name for name in names if not os.environ.get(name)]


def required(name: str) -> str:
    """The value of a variable. Raises UserError where it is not set."""
    value = os.environ.get(name)
    if not value:
        raise UserError(f"{name} is not set: the README lists every variable; `make dev` needs none")
    return value


def postgres(s3: "S3Client | None" = None) -> "Postgres":
    """The source. Database, user and password come from the object at POSTGRES_CREDENTIALS_S3_URI where that is set."""
    from mozagg2bq_assets.pgdump.source import Postgres

    host, port = required("POSTGRES_HOST"), os.environ.get("POSTGRES_PORT") or "5432"
    uri = os.environ.get(CREDENTIALS_URI)
    if not uri:
        return Postgres(host, port, *(required(name) for name in _CREDENTIALS))

    from mozagg2bq_assets.lake.store import read_object

    try:
        credentials = json.loads(read_object(s3 or s3_client(), uri))
        return Postgres(host, port, *(str(credentials[name]) for name in _CREDENTIALS))
    except (ValueError, KeyError, TypeError) as error:
        names = ", ".join(_CREDENTIALS)
        raise UserError(f"{CREDENTIALS_URI}: {uri} is not a JSON object with {names}") from error


def s3_client() -> "S3Client":
    """S3 as the standard AWS variables say."""
    import boto3

    return boto3.client("s3")


def lake(s3: "S3Client | None" = None) -> "Lake":
    """The lake at LAKE_URI."""
    from mozagg2bq_assets.lake.store import Lake

    return Lake.at(s3 or s3_client(), required("LAKE_URI"))


def warehouse() -> "Warehouse":
    """The dataset BIGQUERY_DATASET in BIGQUERY_PROJECT."""
    from google.cloud import bigquery

    from mozagg2bq_assets.warehouse.bigquery import Warehouse, bigquery_errors

    project, dataset = required("BIGQUERY_PROJECT"), required("BIGQUERY_DATASET")
    with bigquery_errors("credentials"):
        return Warehouse(bigquery.Client(project=project), dataset)


def engine(chosen: str | None = None) -> str:
    """What makes Parquet of dumps: `chosen`, else TRANSFORM_ENGINE. Raises UserError."""
    name = chosen or os.environ.get("TRANSFORM_ENGINE") or ENGINES[0]
    if name not in ENGINES:
        raise UserError(f"transform engine {name!r}: use {' or '.join(ENGINES)} (TRANSFORM_ENGINE)")
    return name


def spark_config() -> dict[str, str]:
    """Spark's configuration, besides what its own `spark-defaults.conf` says.

    SPARK_MASTER is the cluster, SPARK_ARCHIVE the package with all it needs where the executors do not have it.
    """
    config = {
        "spark.app.name": "mozagg2bq",
        "spark.master": os.environ.get("SPARK_MASTER") or "local[*]",
        "spark.ui.showConsoleProgress": "false",
    }
    if archive := os.environ.get("SPARK_ARCHIVE"):
        if not os.path.isfile(archive):
            raise UserError(f"SPARK_ARCHIVE: {archive}: no such file; `make spark-archive` makes it")
        config |= {"spark.archives": f"{archive}#environment", "spark.executorEnv.PYTHONPATH": "environment"}
    return config


def partitions_start() -> date:
    """First day of the partitions."""
    return parse_day(os.environ.get("PARTITIONS_START") or "2015-06-01")


def partitions_per_run() -> int:
    """Days that one run of a backfill takes. Raises UserError."""
    text = os.environ.get("PARTITIONS_PER_RUN") or "10"
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"PARTITIONS_PER_RUN is {text!r}: a number from 1")
    return int(text)
