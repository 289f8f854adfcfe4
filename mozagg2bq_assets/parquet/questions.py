"""The questions of `bigquery.questions`, asked of a Parquet file: sqlglot puts their SQL into DuckDB's terms."""

from importlib.resources import files
from pathlib import Path

import duckdb
import sqlglot
from sqlglot import expressions

from mozagg2bq_assets.bigquery.questions import Answer, Query, answers
from mozagg2bq_assets.errors import TOTAL_IS_TOO_LARGE, UserError, one_line
from mozagg2bq_assets.parquet.reader import literal

HISTOGRAMS = files(__package__).joinpath("histograms.sql").read_text()
# BigQuery's NUMERIC. DuckDB's own default is DECIMAL(18, 3), which a bigint does not fit into.
NUMERIC = expressions.DataType.build("DECIMAL(38, 9)")


def ask_file(path: Path, query: Query) -> list[Answer]:
    """The answer of one Parquet file. Raises UserError for a total beyond 64 bits."""
    with duckdb.connect() as connection:
        connection.sql(HISTOGRAMS, params={"path": literal(path)}).create_view("histograms")
        try:
            cursor = connection.execute(duckdb_sql(query.sql("histograms")), query.parameters())
        except duckdb.ConversionException as error:
            raise UserError(f"{TOTAL_IS_TOO_LARGE} ({one_line(str(error))})") from error
        return answers([column[0] for column in cursor.description or ()], cursor.fetchall())


def duckdb_sql(query: str) -> str:
    """BigQuery's SQL in DuckDB's dialect."""
    tree = sqlglot.parse_one(query, read="bigquery")
    for kind in tree.find_all(expressions.DataType):
        if kind.this is expressions.DataType.Type.DECIMAL and not kind.expressions:
            kind.replace(NUMERIC.copy())
    return tree.sql("duckdb")
