"""The check `reconciliation`: source, lake and BigQuery against each other, over all days, at any time, by itself.

The row counts of the stages are declared in `specs` and evaluated in `events`.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

from dagster import (
    AssetCheckResult,
    AssetChecksDefinition,
    Failure,
    MetadataValue,
    TableColumn,
    TableMetadataValue,
    TableRecord,
    TableSchema,
    asset_check,
)

from mozagg2bq_assets.defs.keys import RECONCILIATION, source_key
from mozagg2bq_assets.defs.resources import LakeResource, PostgresResource, WarehouseResource
from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.reconcile import RECENT_DAYS, Report, reconcile

LISTED = 100
SHOWN = 3
_COUNTS = ("source_tables", "dump_rows", "parquet_rows", "bigquery_rows")


def reconciliation(aggregate_type: AggregateType, start: date) -> AssetChecksDefinition:
    """The check of a type's source tables, from a day on, against all that was made from them."""

    @asset_check(
        asset=source_key(aggregate_type),
        name=RECONCILIATION,
        description="Compares, for all days: the names of the source's tables with those in the dumps; the rows in"
        f" dump, Parquet and BigQuery; the files in the lake with their manifests. The source's rows are counted on the"
        f" last {RECENT_DAYS} days and on days without a dump. What rows hold is compared by"
        " `mozagg2bq verify --content` alone. When red: materialize what the first line names",
    )
    def check(postgres: PostgresResource, lake: LakeResource, bigquery: WarehouseResource) -> AssetCheckResult:
        everything = DayRange(start, datetime.now(UTC).date())
        try:
            with postgres.source().connect() as connection:
                return _result(reconcile(connection, lake.lake(), bigquery.warehouse(), aggregate_type, everything))
        except OperatorError as error:
            raise Failure(str(error)) from None

    return check


def _result(report: Report) -> AssetCheckResult:
    differing, groups = report.differing, report.grouped
    records = [
        TableRecord(
            {
                "day": str(day.day),
                **{name: getattr(day, name) or 0 for name in _COUNTS},
                "differences": "; ".join(map(str, day.differences)),
            }
        )
        for day in (differing or report.days)[-LISTED:]
    ]
    schema = TableSchema(
        [TableColumn("day"), *(TableColumn(name, "int") for name in _COUNTS), TableColumn("differences")]
    )
    metadata: dict[str, Any] = {
        "differences": _lines("difference", groups),
        # Not as Markdown: names of tables may hold some.
        "notes": _lines("note", report.notes),
        "days_that_differ" if differing else "last_days": MetadataValue.table(records, schema),
        "number_of_days": len(report.days),
    }
    return AssetCheckResult(
        passed=not differing,
        description="; ".join(groups[:SHOWN]) + (f"; and {len(groups) - SHOWN} more" if len(groups) > SHOWN else "")
        or f"{len(report.days)} days agree",
        metadata={name: value for name, value in metadata.items() if value is not None},
    )


def _lines(name: str, lines: Sequence[str]) -> TableMetadataValue | None:
    """A table of one column; None where it would have no rows."""
    records = [TableRecord({name: line}) for line in lines[:LISTED]]
    return MetadataValue.table(records, TableSchema([TableColumn(name)])) if records else None
