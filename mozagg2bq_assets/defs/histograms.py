"""The views of histograms beside the two tables, which dashboards and people read, and the check of what they lack."""

from datetime import UTC, date, datetime, timedelta

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetsDefinition,
    Failure,
    MaterializeResult,
    MetadataValue,
    asset_check,
    multi_asset,
)

from mozagg2bq_assets.defs.keys import BUCKETS, histograms_key
from mozagg2bq_assets.defs.resources import WarehouseResource
from mozagg2bq_assets.defs.specs import view_spec
from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType

# BigQuery charges for what the check reads: the histograms of so many days.
CHECKED_DAYS = 7


def histograms(aggregate_type: AggregateType) -> AssetsDefinition:
    """The view of a type. Making it anew costs nothing and changes no row."""

    @multi_asset(name=f"{aggregate_type}_histograms", specs=[view_spec(aggregate_type)])
    def view(bigquery: WarehouseResource) -> MaterializeResult[None]:
        from mozagg2bq_assets.bigquery.views import replace_view

        try:
            query = replace_view(bigquery.warehouse(), aggregate_type)
        except OperatorError as error:
            raise Failure(str(error)) from None
        return MaterializeResult(metadata={"query": MetadataValue.md(f"```sql\n{query}\n```")})

    return view


def buckets(aggregate_type: AggregateType, start: date) -> AssetChecksDefinition:
    """The check of a type's view: every row of the latest loaded days has a histogram."""

    @asset_check(
        asset=histograms_key(aggregate_type),
        name=BUCKETS,
        description=f"Every row of the last {CHECKED_DAYS} loaded days has buckets. A row has none if its histogram"
        " is NULL, has fewer than two elements or has a NULL among them; the table keeps it as it is",
    )
    def check(bigquery: WarehouseResource) -> AssetCheckResult:
        from mozagg2bq_assets.bigquery.views import count_histograms

        try:
            warehouse = bigquery.warehouse()
            loaded = warehouse.count_days(aggregate_type, DayRange(start, datetime.now(UTC).date()))
            last = sorted(loaded)[-CHECKED_DAYS:]
            if not last:
                return AssetCheckResult(passed=True, description="no day is loaded")
            days = DayRange(last[0], last[-1] + timedelta(days=1))
            counts = count_histograms(warehouse, aggregate_type, days)
        except OperatorError as error:
            raise Failure(str(error)) from None
        return AssetCheckResult(
            passed=not counts.without,
            severity=AssetCheckSeverity.WARN,
            description=f"{counts.without:,} of {counts.rows:,} rows from {last[0]} to {last[-1]} have no buckets: the"
            " table has them as the source does, so look at the source if there are many",
            metadata={"rows": counts.rows, "rows_without_buckets": counts.without},
        )

    return check
