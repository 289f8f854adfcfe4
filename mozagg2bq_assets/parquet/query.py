"""The query over COPY text: fixed parts are macros in `rows.sql`, what depends on the columns is generated here."""

from importlib.resources import files

import duckdb

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.parquet.jsonb import ARRAY

# What a file's name and folder say of its rows. As enumerations they are written several times as fast as text.
NAMES = ("aggregate_type", "ds_nodash", "channel", "version")

# Two strings as PostgreSQL prints them: one, and an object of nothing but strings under known keys.
_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u00[01][0-9a-f])*"'
_MEMBER = rf'"(?:{"|".join(DIMENSIONS)})": {_STRING}'
STRINGS_ONLY = rf"\{{(?:{_MEMBER}(?:, {_MEMBER})*)?\}}"


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define the macros of `rows.sql`. They call `exact_dimensions(object)`, which the caller defines first."""
    connection.execute(files("mozagg2bq_assets.parquet").joinpath("rows.sql").read_text())


def rows_query() -> str:
    """Select the 13 columns of every row of `chunks`: columns NAMES, and `chunk` with lines of COPY text.

    NAMES are types too. The only parameter is `$ingest_date`.
    """
    between = ("{" + ", ".join(f'"{key}": "%"' for key in DIMENSIONS) + "}").split("%")
    pieces = (f"'{text}', strings[{n}]" for n, text in enumerate(between[:-1], 1))
    printed = f"concat({', '.join(pieces)}, '{between[-1]}')"
    paths = ", ".join(f"'$.{key}'" for key in DIMENSIONS)
    sources = {
        **{name: name for name in NAMES},
        **{key: f"dimensions[{n}]" for n, key in enumerate(DIMENSIONS, 1)},
        "ingest_date": "$ingest_date::DATE",
        "aggregate": "aggregate",
    }
    columns = ", ".join(f'{sources[column.name]} AS "{column.name}"' for column in COLUMNS)
    return f"""
        WITH lines AS (
            SELECT {", ".join(f"{name}::{name} AS {name}" for name in NAMES)},
                copy_fields(unnest(string_split(chunk, chr(10)))) AS fields
            FROM chunks
        ), texts AS (
            SELECT *, copy_text(fields[1]) AS object, second_field(fields) AS array_text FROM lines
        ), parsed AS (
            SELECT *, TRY(json_extract_string(object, [{paths}])) AS strings FROM texts
        ), rows AS (
            SELECT {", ".join(NAMES)},
                dimension_values(object, strings, {printed}, '{STRINGS_ONLY}') AS dimensions,
                array_json(array_text, '{ARRAY}') AS aggregate
            FROM parsed
        )
        SELECT {columns} FROM rows
    """
