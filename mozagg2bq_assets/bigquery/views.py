"""Views of histograms beside the two tables: making them, counting rows without a histogram, questions to them."""

import json
from dataclasses import dataclass
from datetime import date

from google.cloud import bigquery

from mozagg2bq_assets.bigquery.questions import Answer, Query, answers, read_sql
from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.columns import VIEW_COLUMNS
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType


@dataclass(frozen=True)
class HistogramCounts:
    """Rows of a view on some days: all, and those that have no histogram."""

    days: DayRange
    rows: int
    without: int


def replace_view(warehouse: Warehouse, aggregate_type: AggregateType) -> str:
    """Create or replace a type's view, and its table where that is not there yet. Returns the view's SQL.

    Raises UserError where BigQuery refuses, or something else has the view's name; TransientError where it is away.
    """
    warehouse.ensure_table(aggregate_type)
    query = read_sql("histograms").format(aggregates=f"`{warehouse.table_id(aggregate_type)}`")
    columns = ", ".join(f"{each.name} OPTIONS(description={json.dumps(each.description)})" for each in VIEW_COLUMNS)
    view = f"CREATE OR REPLACE VIEW `{warehouse.view_id(aggregate_type)}` ({columns}) AS\n{query}"
    warehouse.query(aggregate_type, view, [])
    return query


def count_histograms(warehouse: Warehouse, aggregate_type: AggregateType, days: DayRange) -> HistogramCounts:
    """Count the view's rows on those days. BigQuery charges for the column `aggregate` there."""
    query = (
        "SELECT COUNT(*) AS all_rows, COUNTIF(count IS NULL) AS without"
        f" FROM `{warehouse.view_id(aggregate_type)}` WHERE date >= @start AND date < @end"
    )
    parameters = [_parameter("start", days.start), _parameter("end", days.end)]
    (row,) = warehouse.query(aggregate_type, query, parameters)
    return HistogramCounts(days, row["all_rows"], row["without"])


def ask(warehouse: Warehouse, query: Query) -> list[Answer]:
    """The answer of a type's view. Raises UserError where there is no such view, TransientError where it is away."""
    name = warehouse.view_id(query.aggregate_type)
    if not warehouse.has_view(query.aggregate_type):
        raise UserError(f"there is no view {name}: materialize {query.aggregate_type}/histograms")
    parameters = [_parameter(name, value) for name, value in query.parameters().items()]
    rows = warehouse.query(query.aggregate_type, query.sql(f"`{name}`"), parameters)
    return answers(list(rows[0].keys()) if rows else [], [tuple(row) for row in rows])


def _parameter(name: str, value: date | str | None) -> bigquery.ScalarQueryParameter:
    return bigquery.ScalarQueryParameter(name, "DATE" if isinstance(value, date) else "STRING", value)
