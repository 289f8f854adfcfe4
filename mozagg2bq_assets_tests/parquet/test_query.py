"""The macros of `rows.sql`, one by one."""

from collections.abc import Iterator, Sequence

import duckdb
import pytest

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.parquet.jsonb import ARRAY
from mozagg2bq_assets.parquet.query import NAMES, PLACES, create_macros, rows_query
from mozagg2bq_assets.parquet.shapes import Shapes


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


def test_array_field(connection: duckdb.DuckDBPyConnection) -> None:
    """The field of that number, and an error where there are more or fewer than there should be."""
    assert result(connection, "array_field(?::VARCHAR[], 2, 2)", ["{}", "{1}"]) == "{1}"
    assert result(connection, "array_field(?::VARCHAR[], 3, 1)", ["\\N", "{}", "x"]) is None
    for fields in (["{}"], ["{}", "{1}", "x"]):
        with pytest.raises(duckdb.Error, match="not that many columns"):
            result(connection, "array_field(?::VARCHAR[], 2, 2)", fields)


def values_of(connection: duckdb.DuckDBPyConnection, text: str, known: Sequence[str]) -> list[object]:
    """What the query gives for the dimensions of an object, where the shapes of some texts are known."""
    shapes = Shapes().learn(known)
    connection.create_function("counted", lambda number: number, ["TINYINT"], "TINYINT")
    columns = [*(f"'{name}' AS {name}" for name in NAMES), "2 AS width, 1 AS dimensions_at, 2 AS histogram_at"]
    for name in NAMES:
        connection.execute(f"CREATE TYPE {name} AS ENUM ('{name}')")
    connection.execute(f"CREATE TABLE chunks AS SELECT {', '.join(columns)}, $chunk AS chunk", {"chunk": text + "\t{}"})
    (row,) = connection.execute(rows_query(shapes), {"ingest_date": "2019-12-02"}).fetchall()
    return list(row[1 + len(NAMES) : -1])


OLD = '{"os": "a", "child": true, "e10sEnabled": false}'


@pytest.mark.parametrize(
    ("text", "known", "values"),
    [
        ('{"os": "x"}', ['{"os": "y"}'], {"os": "x"}),
        ('{"os": "x", "child": false, "e10sEnabled": true}', [OLD], {"os": "x", "child": "false"}),
        ('{"os": "x", "child": null, "e10sEnabled": true}', [OLD], None),
        ('{"os": "x", "child": "false", "e10sEnabled": true}', [OLD], None),
        ('{"os": "x", "child": "false", "e10sEnabled": "true"}', [OLD], None),
        ('{"os": null, "label": "x"}', ['{"os": null, "label": ""}'], {"label": "x"}),
        ('{"os": "", "label": "x"}', ['{"os": null, "label": ""}'], None),
        ('{"child": -12}', ['{"child": true}'], {"child": "-12"}),
        ('{"child": 1.10}', ['{"child": 1.1}'], None),  # DuckDB makes 1.1 of it
        ('{"child": [1]}', ['{"child": 1}'], {"child": "[1]"}),
        ('{"child": [1, 2]}', ['{"child": 1}'], None),  # DuckDB makes [1,2] of it
        ('{"child": }', ['{"child": 1}'], None),
        ('{"os": "a\\\\"b\\\\\\\\"}', ['{"os": ""}'], {"os": 'a"b\\'}),  # escaped by JSON and by COPY
        ('{"os": "x", "os": "y"}', ['{"os": "x"}'], None),
        ('{"os":"x"}', ['{"os": "x"}'], None),
        ('{"os": "x"} ', ['{"os": "x"}'], None),
        ('{"OS": "x"}', ['{"os": "x"}', '{"OS": "x"}'], {}),
        ("{}", ["{}"], {}),
        ("[]", ["{}"], None),
        ('{"os": "x"', ['{"os": "x"}'], None),
    ],
)
def test_proofs(
    connection: duckdb.DuckDBPyConnection, text: str, known: list[str], values: dict[str, str] | None
) -> None:
    """DuckDB's strings where a known shape prints the text around them; the exact reader for the rest (None)."""
    found = values_of(connection, text, known)
    expected = ["exact", *[None] * 6] if values is None else [values.get(key) for key in DIMENSIONS]
    assert found == expected


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
    names = ", ".join(f"{name} TEXT" for name in (*NAMES, "chunk"))
    connection.execute(f"CREATE TABLE chunks ({names}, {', '.join(f'{place} INT' for place in PLACES)})")
    for name in NAMES:
        connection.execute(f"CREATE TYPE {name} AS ENUM ('{name}')")
    members = ", ".join(f'"{key}": "{key}"' for key in DIMENSIONS)
    lines = f"{{{members}}}\t{{1,2}}\n\\N\t\\N"
    connection.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, 2, 1, 2)", [*NAMES, lines])
    found = connection.execute(rows_query(Shapes()), {"ingest_date": "2019-12-02"})
    assert [column[0] for column in found.description or ()] == [column.name for column in COLUMNS]
    assert [row[1:] for row in found.fetchall()] == [
        (*NAMES, *DIMENSIONS, "[1,2]"),
        (*NAMES, *[None] * len(DIMENSIONS), None),
    ]
