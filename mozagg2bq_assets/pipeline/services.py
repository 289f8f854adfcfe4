"""Until the commands read the classes."""

from typing import TYPE_CHECKING

from mozagg2bq_assets import settings
from mozagg2bq_assets.pipeline import source
from mozagg2bq_assets.postgres.connection import Postgres

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse
    from mozagg2bq_assets.lake.store import Lake


def open_source() -> Postgres:
    return source.open_source(settings.read_postgres())


def open_lake() -> "Lake":
    from mozagg2bq_assets.lake.store import Lake

    return Lake(settings.LakeSettings.read())


def open_warehouse() -> "Warehouse":
    from mozagg2bq_assets.bigquery import warehouse

    return warehouse.open_warehouse(settings.BigQuerySettings.read())
