"""The 13 columns of the Parquet file and of the BigQuery table, written down once.

Every other schema is derived from them, but for the SELECT lists of the two `histograms.sql`. Where a column's values
come from is in `parquet.query`. A table that exists in BigQuery is refused after a change here.
"""

from typing import NamedTuple


class Column(NamedTuple):
    """A column of the Parquet file and of the BigQuery table."""

    name: str
    bigquery_type: str
    mode: str
    description: str


DIMENSIONS = ("os", "child", "label", "metric", "osVersion", "application", "architecture")

# Keys without a column that the source is known to have written: until 2018-03-29. Any other is worth a warning.
EXPECTED_KEYS = frozenset({"e10sEnabled"})

COLUMNS = (
    Column("ingest_date", "DATE", "REQUIRED", "UTC day the dump was taken"),
    Column("aggregate_type", "STRING", "NULLABLE", "submission_date or build_id"),
    Column("ds_nodash", "STRING", "NULLABLE", "date of the aggregate, YYYYMMDD"),
    Column("channel", "STRING", "NULLABLE", "release channel, from the source table's name"),
    Column("version", "STRING", "NULLABLE", "Firefox's major version, from the source table's name"),
    *(Column(name, "STRING", "NULLABLE", f"dimensions->>'{name}' in PostgreSQL") for name in DIMENSIONS),
    Column("aggregate", "STRING", "NULLABLE", "histogram as a JSON array: the bucket counts, then sum and count"),
)

_NOT_IN_VIEW = ("ingest_date", "aggregate_type", "aggregate")
_NULL = "NULL where the histogram is NULL, has fewer than two elements or a NULL among them"

# The columns of the view of histograms. BigQuery gives an empty array where buckets are NULL.
VIEW_COLUMNS = (
    Column("date", "DATE", "NULLABLE", "date of the aggregate, the partition: filter by it, and no other day is read"),
    *(column for column in COLUMNS if column.name not in _NOT_IN_VIEW),
    Column("buckets", "INTEGER", "REPEATED", f"the bucket counts; {_NULL}"),
    Column("sum", "INTEGER", "NULLABLE", f"the sum, last element but one of aggregate; {_NULL}"),
    Column("count", "INTEGER", "NULLABLE", f"the count, last element of aggregate; {_NULL}"),
)
