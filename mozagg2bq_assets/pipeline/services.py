"""Connect to the services that the settings name. Their clients are imported here when they are needed.

Dagster's BigQuery client is made in `defs.resources`. Each takes longer to import than a small day to convert.
"""

import json
from typing import TYPE_CHECKING

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import (
    CREDENTIALS,
    CREDENTIALS_URI,
    BigQuerySettings,
    LakeSettings,
    PostgresSettings,
)

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse
    from mozagg2bq_assets.lake.store import Lake


def open_source() -> Postgres:
    """The source. Database, user and password come from the object in S3 where the settings name one."""
    settings = PostgresSettings.read()
    if settings.credentials_uri is None:
        return Postgres(
            settings.host, settings.port, settings.dbname or "", settings.user or "", settings.password or ""
        )
    from mozagg2bq_assets.lake.objects import read_object, s3_client

    try:
        credentials = json.loads(read_object(s3_client(), settings.credentials_uri))
        return Postgres(settings.host, settings.port, *(str(credentials[name]) for name in CREDENTIALS))
    except (ValueError, KeyError, TypeError) as error:
        names = ", ".join(CREDENTIALS)
        raise UserError(f"{CREDENTIALS_URI}: {settings.credentials_uri} is not a JSON object with {names}") from error


def open_lake() -> "Lake":
    """The lake."""
    from mozagg2bq_assets.lake.objects import s3_client
    from mozagg2bq_assets.lake.store import Lake

    return Lake.at(s3_client(), LakeSettings.read().uri)


def open_warehouse() -> "Warehouse":
    """The dataset in BigQuery."""
    from google.cloud import bigquery

    from mozagg2bq_assets.bigquery.warehouse import Warehouse, bigquery_errors

    settings = BigQuerySettings.read()
    with bigquery_errors("credentials"):
        return Warehouse(bigquery.Client(project=settings.project), settings.dataset)
