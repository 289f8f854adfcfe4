"""Spark as a Dagster resource, which starts nothing and imports nothing until it is used."""

from typing import TYPE_CHECKING

from dagster import ConfigurableResource

from mozagg2bq_assets.environment import spark_config

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkResource(ConfigurableResource["SparkSession"]):
    """Spark as SPARK_MASTER and SPARK_ARCHIVE say; `spark_config` sets any other of Spark's properties."""

    spark_config: dict[str, str] = {}  # noqa: RUF012

    def check(self) -> None:
        """Raise UserError where `session` would, for want of Java or of the archive that is configured."""
        from mozagg2bq_assets.transform.spark import check_java

        check_java()
        spark_config()

    def session(self) -> "SparkSession":
        """dagster-pyspark's session. Raises UserError where Spark does not start."""
        from dagster_pyspark import PySparkResource

        from mozagg2bq_assets.transform.spark import spark_errors, use_this_python

        self.check()
        use_this_python()
        resource = PySparkResource(spark_config={**spark_config(), **self.spark_config})
        with spark_errors():
            session: SparkSession = resource.process_config_and_initialize().spark_session
        return session
