"""What Dagster loads."""

from dagster import Definitions, get_dagster_logger, in_process_executor

from mozagg2bq_assets import environment
from mozagg2bq_assets.assets import daily_stages, source_tables
from mozagg2bq_assets.checks import reconciliation
from mozagg2bq_assets.jobs import JOBS
from mozagg2bq_assets.resources.bigquery import WarehouseResource
from mozagg2bq_assets.resources.lake import LakeResource
from mozagg2bq_assets.resources.postgres import PostgresResource
from mozagg2bq_assets.resources.spark import SparkResource
from mozagg2bq_assets.schedules import SCHEDULES
from mozagg2bq_assets.schema import AggregateType

if missing := environment.missing():
    get_dagster_logger().warning(f"runs will fail until these variables are set: {', '.join(missing)}")

defs = Definitions(
    assets=[source_tables(t) for t in AggregateType] + [daily_stages(t) for t in AggregateType],
    asset_checks=[reconciliation(t) for t in AggregateType],
    jobs=list(JOBS.values()),
    schedules=SCHEDULES,
    resources={
        "postgres": PostgresResource(),
        "lake": LakeResource(),
        "bigquery": WarehouseResource(),
        "spark": SparkResource(),
    },
    # One process for all stages of a run: another would import everything again.
    executor=in_process_executor,
)
