"""The macros of `rows.sql`, one by one."""

from collections.abc import Iterator

import duckdb
import pytest

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.parquet.jsonb import ARRAY
from mozagg2bq_assets.parquet.query import NAMES, STRINGS_ONLY, create_macros, rows_query


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the macros, and a reader that says that it was called."""
    with duckdb.connect() as connection:
        connection.create_function("exact_dimensions", lambda _: ["exact"], ["VARCHAR"], "VARCHAR[]")
        create_macros(connection)
        yield connection


def result(connection: duckdb.DuckDBPyConnection, expression: str, *values: object) -> object:
    """What an expression gives."""
    (found,) = connection.execute(f"SELECT {expression}", values).fetchone() or (None,)
    return found


def test_copy_fields(connection: duckdb.DuckDBPyConnection) -> None:
    """Fields are split at tabs, and not at a tab that COPY has escaped."""
    assert result(connection, "copy_fields(?::VARCHAR)", "a\tb\\tc\t") == ["a", "b\\tc", ""]


@pytest.mark.parametrize(
    ("field", "text"),
    [("\\N", None), ("\\\\N", "\\N"), ("", ""), ('{"a": "\\\\n"}', '{"a": "\\n"}'), ("\\\\\\\\", "\\\\")],
)
def test_copy_text(connection: duckdb.DuckDBPyConnection, field: str, text: str | None) -> None:
    """Doubled backslashes are one, and a bare `\\N` is NULL."""
    assert result(connection, "copy_text(?::VARCHAR)", field) == text


def test_second_field(connection: duckdb.DuckDBPyConnection) -> None:
    """The second of two, and an error for any other number."""
    assert result(connection, "second_field(?::VARCHAR[])", ["{}", "{1}"]) == "{1}"
    assert result(connection, "second_field(?::VARCHAR[])", ["{}", "\\N"]) is None
    for fields in (["{}"], ["{}", "{1}", "x"]):
        with pytest.raises(duckdb.Error, match="not two columns"):
            result(connection, "second_field(?::VARCHAR[])", fields)


@pytest.mark.parametrize(
    ("text", "printed", "values"),
    [
        ('{"os": "x"}', '{"os": "x"}', ["x"]),  # printed again it is the same
        (None, None, None),
        ('{"os": "a\\"b"}', '{"os": "a"b"}', ["x"]),  # an escape; strings only
        ("{}", "", ["x"]),
        ('{"os": 1}', '{"os": "1"}', ["exact"]),
        ('{"other": "x"}', "", ["exact"]),
        ('{"os": "x"', "", ["exact"]),
        ('{"os": "\x01"}', "", ["exact"]),
    ],
)
def test_dimension_values(
    connection: duckdb.DuckDBPyConnection, text: str | None, printed: str | None, values: list[str] | None
) -> None:
    """DuckDB's strings where they are proven, by the printed text or the pattern; the exact reader for the rest."""
    expression = f"dimension_values(?::VARCHAR, ['x'], ?::VARCHAR, '{STRINGS_ONLY}')"
    assert result(connection, expression, text, printed) == values


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("{1,2,3}", "[1,2,3]"),
        ("{}", "[]"),
        (None, None),
        ("{NULL,1}", "[null,1]"),
        ("[0:1]={3,4}", "[3,4]"),
        ("[-3:-2][1:1]={{-1},{2}}", "[[-1],[2]]"),
        ("{{1,2},{3,4}}", "[[1,2],[3,4]]"),
        ("{-9223372036854775808}", "[-9223372036854775808]"),
    ],
)
def test_array_json(connection: duckdb.DuckDBPyConnection, text: str | None, json: str | None) -> None:
    """PostgreSQL's text of an array as JSON."""
    assert result(connection, f"array_json(?::VARCHAR, '{ARRAY}')", text) == json


@pytest.mark.parametrize("text", ["1,2", "{1,2", "{N}x", "", "[1:2]{1,2}", "{a,NULL}"])
def test_no_array(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    """What is none is an error."""
    with pytest.raises(duckdb.Error, match="not an array of bigint"):
        result(connection, f"array_json(?::VARCHAR, '{ARRAY}')", text)


def test_columns(connection: duckdb.DuckDBPyConnection) -> None:
    """The query gives the 13 columns in their order, a row a line."""
    connection.execute(f"CREATE TABLE chunks ({', '.join(f'{name} TEXT' for name in (*NAMES, 'chunk'))})")
    for name in NAMES:
        connection.execute(f"CREATE TYPE {name} AS ENUM ('{name}')")
    members = ", ".join(f'"{key}": "{key}"' for key in DIMENSIONS)
    lines = f"{{{members}}}\t{{1,2}}\n\\N\t\\N"
    connection.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)", [*NAMES, lines])
    found = connection.execute(rows_query(), {"ingest_date": "2019-12-02"})
    assert [column[0] for column in found.description or ()] == [column.name for column in COLUMNS]
    assert [row[1:] for row in found.fetchall()] == [
        (*NAMES, *DIMENSIONS, "[1,2]"),
        (*NAMES, *[None] * len(DIMENSIONS), None),
    ]
