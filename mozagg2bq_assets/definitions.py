"""What Dagster loads."""

from dagster import Definitions, get_dagster_logger, in_process_executor

from mozagg2bq_assets import settings
from mozagg2bq_assets.defs.assets import daily_stages
from mozagg2bq_assets.defs.reconciliation import reconciliation
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource, SparkResource, WarehouseResource
from mozagg2bq_assets.defs.schedules import JOBS, SCHEDULES
from mozagg2bq_assets.defs.specs import source_tables
from mozagg2bq_assets.model.tables import AggregateType

if missing := settings.missing():
    get_dagster_logger().warning(f"runs will fail until these variables are set: {', '.join(missing)}")

defs = Definitions(
    assets=[source_tables(t) for t in AggregateType] + [daily_stages(t) for t in AggregateType],
    asset_checks=[reconciliation(t) for t in AggregateType],
    jobs=JOBS,
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
