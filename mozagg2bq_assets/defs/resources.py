"""The services as Dagster's resources. What they connect to is in the environment, so that no secret is run config."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dagster import ConfigurableResource

from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.pipeline.services import open_lake, open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import BigQuerySettings, SparkSettings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mozagg2bq_assets.bigquery.warehouse import Warehouse
    from mozagg2bq_assets.parquet.converter import Converter


class PostgresResource(ConfigurableResource[Postgres]):
    """The source, from POSTGRES_* in the environment."""

    def source(self) -> Postgres:
        """Raises UserError where a variable is missing."""
        return open_source()


class LakeResource(ConfigurableResource[Lake]):
    """S3 as the standard AWS variables say, and the lake at LAKE_URI in it."""

    def lake(self) -> Lake:
        """Raises UserError where LAKE_URI is missing."""
        return open_lake()


class WarehouseResource(ConfigurableResource["Warehouse"]):
    """The dataset BIGQUERY_DATASET in BIGQUERY_PROJECT."""

    @contextmanager
    def warehouse(self) -> "Iterator[Warehouse]":
        """Raises UserError where a variable or the credentials are missing."""
        # Google's client brings pandas with it, so it is imported by what uses it.
        from dagster_gcp import BigQueryResource

        from mozagg2bq_assets.bigquery.warehouse import Warehouse, bigquery_errors

        settings = BigQuerySettings.read()
        with ExitStack() as stack:
            with bigquery_errors("credentials"):
                client = stack.enter_context(BigQueryResource(project=settings.project).get_client())
            yield Warehouse(client, settings.dataset)


class SparkResource(ConfigurableResource["SparkSession"]):
    """Spark as SPARK_MASTER and SPARK_ARCHIVE say; `spark_config` sets any other of Spark's properties.

    Nothing of Spark is imported or started until it is used.
    """

    spark_config: dict[str, str] = {}  # noqa: RUF012

    def converter(self, lake: Lake, run_id: str) -> "Converter":
        """The engine that converts what is in a lake. Raises UserError where Spark could not start."""
        from mozagg2bq_assets.spark.job import SparkConverter
        from mozagg2bq_assets.spark.session import prepare
        from mozagg2bq_assets.spark.storage import LakeStorage

        prepare()
        SparkSettings.read()
        return SparkConverter(self.session, LakeStorage(lake.root, run_id))

    def session(self) -> "SparkSession":
        """dagster-pyspark's session. Raises UserError where Spark does not start."""
        from dagster_pyspark import PySparkResource

        from mozagg2bq_assets.spark.session import prepare, spark_config, spark_errors

        prepare()
        config = {**spark_config(SparkSettings.read()), **self.spark_config}
        with spark_errors(config["spark.master"]):
            session: SparkSession = PySparkResource(spark_config=config).process_config_and_initialize().spark_session
        return session
