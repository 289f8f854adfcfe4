"""The lake as a Dagster resource."""

from dagster_aws.s3 import S3Resource

from mozagg2bq_assets import environment
from mozagg2bq_assets.lake.store import Lake


class LakeResource(S3Resource):
    """S3 as the standard AWS variables say, and the lake at LAKE_URI in it."""

    def lake(self) -> Lake:
        """Raises UserError where LAKE_URI is missing."""
        return environment.lake(self.get_client())
