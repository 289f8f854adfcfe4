"""The check `reconciliation`: source, lake and BigQuery against each other, over all days, at any time, by itself.

The row counts of the stages are declared in `specs` and evaluated in `events`.
"""

from datetime import UTC, date, datetime

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    Failure,
    MetadataValue,
    TableColumn,
    TableRecord,
    TableSchema,
    asset_check,
)

from mozagg2bq_assets.defs.keys import RECONCILIATION, source_key
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource, WarehouseResource
from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.reconcile import Report, reconcile

LISTED = 100
_COUNTS = ("source_tables", "dump_rows", "parquet_rows", "bigquery_rows")


def reconciliation(aggregate_type: AggregateType, start: date) -> AssetChecksDefinition:
    """The check of a type's source tables, from a day on, against all that was made from them."""

    @asset_check(
        asset=source_key(aggregate_type),
        name=RECONCILIATION,
        description="Every source table is in its day's dump, and dump, Parquet and BigQuery have the same number of"
        " rows",
    )
    def check(postgres: PostgresResource, lake: LakeResource, bigquery: WarehouseResource) -> AssetCheckResult:
        everything = DayRange(start, datetime.now(UTC).date())
        try:
            with postgres.source().connect() as connection, bigquery.warehouse() as warehouse:
                return _result(reconcile(connection, lake.lake(), warehouse, aggregate_type, everything))
        except OperatorError as error:
            raise Failure(str(error)) from None

    return check


def _result(report: Report) -> AssetCheckResult:
    differing = [day for day in report.days if day.differences]
    records = [
        TableRecord(
            {
                "day": str(day.day),
                **{name: getattr(day, name) or 0 for name in _COUNTS},
                "differences": "; ".join(day.differences),
            }
        )
        for day in (differing or report.days)[:LISTED]
    ]
    schema = TableSchema(
        [TableColumn("day"), *(TableColumn(name, "int") for name in _COUNTS), TableColumn("differences")]
    )
    return AssetCheckResult(
        passed=not differing,
        description="; ".join(report.differences[:3]) or f"{len(report.days)} days agree",
        metadata={
            "days": len(report.days),
            "days_that_differ": len(differing),
            "first_days": MetadataValue.table(records, schema),
            # Not as Markdown: names of tables may hold some.
            "notes": MetadataValue.table(
                [TableRecord({"note": note}) for note in report.notes[:LISTED]], TableSchema([TableColumn("note")])
            ),
        },
    )
