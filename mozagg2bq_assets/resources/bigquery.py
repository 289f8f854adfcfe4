"""BigQuery as a Dagster resource."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dagster import ConfigurableResource

from mozagg2bq_assets.environment import required

if TYPE_CHECKING:
    from mozagg2bq_assets.warehouse.bigquery import Warehouse


class WarehouseResource(ConfigurableResource["Warehouse"]):
    """The dataset BIGQUERY_DATASET in BIGQUERY_PROJECT."""

    @contextmanager
    def warehouse(self) -> "Iterator[Warehouse]":
        """Raises UserError where a variable or the credentials are missing."""
        # Google's client brings pandas with it, so it is imported by what uses it.
        from dagster_gcp import BigQueryResource

        from mozagg2bq_assets.warehouse.bigquery import Warehouse, bigquery_errors

        project, dataset = required("BIGQUERY_PROJECT"), required("BIGQUERY_DATASET")
        with ExitStack() as stack:
            with bigquery_errors("credentials"):
                client = stack.enter_context(BigQueryResource(project=project).get_client())
            yield Warehouse(client, dataset)
