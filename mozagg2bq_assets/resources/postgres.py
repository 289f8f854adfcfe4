"""The source database as a Dagster resource."""

from dagster import ConfigurableResource
from dagster_aws.s3 import S3Resource

from mozagg2bq_assets import environment
from mozagg2bq_assets.pgdump.source import Postgres


class PostgresResource(ConfigurableResource[Postgres]):
    """The source, from POSTGRES_* in the environment, so that no password is ever run configuration."""

    def source(self) -> Postgres:
        """Raises UserError where a variable is missing."""
        return environment.postgres(S3Resource().get_client())
