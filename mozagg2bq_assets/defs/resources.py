"""The services as Dagster's resources. Their fields are filled from the settings, so that its pages show them.

Tests may give other values. No secret is a field, as pages and logs show fields: each is read where it is used.
"""

from typing import TYPE_CHECKING, Any

from dagster import ConfigurableResource
from pydantic import Field

from mozagg2bq_assets.errors import packages_of
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.settings import (
    BigQuerySettings,
    LakeSettings,
    PostgresByObject,
    PostgresByVariables,
    Settings,
    SparkSettings,
    read_postgres,
)

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mozagg2bq_assets.bigquery.warehouse import Warehouse
    from mozagg2bq_assets.parquet.converter import Converter


def _field(settings: type[Settings], name: str) -> Any:
    """A field of a resource, as the settings describe it; None where nothing is set."""
    described = settings.model_fields[name]
    return Field(default=None, description=f"{described.description} ({described.validation_alias})")


class PostgresResource(ConfigurableResource[Postgres]):
    """The source. The password is in POSTGRES_PASS, or in the object in S3."""

    host: str | None = _field(PostgresByVariables, "host")
    port: str | None = _field(PostgresByVariables, "port")
    dbname: str | None = _field(PostgresByVariables, "dbname")
    user: str | None = _field(PostgresByVariables, "user")
    credentials_uri: str | None = _field(PostgresByObject, "credentials_uri")
    sslmode: str | None = _field(PostgresByVariables, "sslmode")
    sslrootcert: str | None = _field(PostgresByVariables, "sslrootcert")

    def source(self) -> Postgres:
        """Raises UserError where a value is missing or bad."""
        return open_source(read_postgres(**_values(self)))


class LakeResource(ConfigurableResource[Lake]):
    """The lake in S3. Credentials and endpoint are in the standard AWS variables."""

    uri: str | None = _field(LakeSettings, "uri")
    encryption: str | None = _field(LakeSettings, "encryption")
    kms_key_id: str | None = _field(LakeSettings, "kms_key_id")

    def lake(self) -> Lake:
        """Raises UserError where a value is missing or bad."""
        return Lake(LakeSettings.read(**_values(self)))


class WarehouseResource(ConfigurableResource["Warehouse"]):
    """The dataset in BigQuery. Credentials are Google's default ones."""

    project: str | None = _field(BigQuerySettings, "project")
    dataset: str | None = _field(BigQuerySettings, "dataset")
    location: str | None = _field(BigQuerySettings, "location")

    def warehouse(self) -> "Warehouse":
        """Raises UserError where a value is missing or bad, or there are no credentials."""
        # Google's client takes long to import, so it is imported by what uses it.
        from mozagg2bq_assets.bigquery.warehouse import open_warehouse

        return open_warehouse(BigQuerySettings.read(**_values(self)))


class SparkResource(ConfigurableResource["SparkSession"]):
    """Spark. Nothing of it is imported or started before a run uses it."""

    master: str | None = _field(SparkSettings, "master")
    archive: str | None = _field(SparkSettings, "archive")
    spark_config: dict[str, str] = Field(default={}, description="Any other of Spark's properties.")

    def converter(self, lake: Lake, run_id: str) -> "Converter":
        """The engine that converts what is in a lake. Raises UserError where Spark could not start."""
        with packages_of("spark"):
            from mozagg2bq_assets.spark import job, session, storage
        session.prepare()
        self._settings()
        return job.SparkConverter(self.session, storage.LakeStorage(lake.settings, run_id))

    def session(self) -> "SparkSession":
        """dagster-pyspark's session. Raises UserError where Spark does not start."""
        from dagster_pyspark import PySparkResource

        from mozagg2bq_assets.spark.session import prepare, spark_config, spark_errors

        prepare()
        config = {**spark_config(self._settings()), **self.spark_config}
        with spark_errors(config["spark.master"]):
            session: SparkSession = PySparkResource(spark_config=config).process_config_and_initialize().spark_session
        return session

    def _settings(self) -> SparkSettings:
        return SparkSettings.read(master=self.master, archive=self.archive)


def resources_from_settings() -> dict[str, Any]:
    """The resources as the environment has them now, by the names under which assets ask for them."""
    return {
        "postgres": PostgresResource(**PostgresByVariables.texts() | PostgresByObject.texts()),
        "lake": LakeResource(**LakeSettings.texts()),
        "bigquery": WarehouseResource(**BigQuerySettings.texts()),
        "spark": SparkResource(**SparkSettings.texts()),
    }


def _values(resource: ConfigurableResource[Any]) -> dict[str, str]:
    return {name: value for name, value in resource if value is not None}
