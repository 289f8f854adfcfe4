"""The query over COPY text: fixed parts are macros in `rows.sql`, what depends on columns and shapes is made here."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

import duckdb

from mozagg2bq_assets.model.columns import COLUMNS, DIMENSIONS
from mozagg2bq_assets.parquet.jsonb import ARRAY
from mozagg2bq_assets.parquet.shapes import Shape, Shapes

# What a table's name says of its rows. As enumerations they are written several times as fast as text.
NAMES = ("aggregate_type", "ds_nodash", "channel", "version")
# How many columns a table has in its file, and which of them are the two that are read, from 1.
PLACES = ("width", "dimensions_at", "histogram_at")


def create_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define the macros of `rows.sql`. They call `exact_dimensions(object)`, which the caller defines first."""
    connection.execute(files("mozagg2bq_assets.parquet").joinpath("rows.sql").read_text())


def rows_query(shapes: Shapes) -> str:
    """Select the 13 columns of every row of `chunks`.

    That table has the columns NAMES, PLACES and `chunk`, lines of COPY text. Each of NAMES is also the name of an
    enumeration type, which the caller creates. The only parameter is `$ingest_date`. `counted(number)` is the caller's:
    it gets the number of the shape that prints a row, -1 where none does, and gives it back.
    """
    keys, first, ranks = shapes.keys, shapes.known[0], _by_length(shapes.known)
    paths = ", ".join(f"'$.\"{key}\"'" for key in keys)
    escaped = ", ".join(f"escaped(strings[{n}])" for n in range(1, len(keys) + 1))
    lengths = " + ".join(f"coalesce(strlen(printable[{n}]), 0)" for n in range(1, len(keys) + 1))
    candidates = "".join(f", {_lookup(rank)}[length + 1] AS candidate{n}" for n, rank in enumerate(ranks))
    proofs = " ".join(
        f"WHEN object = {_printed('printable', keys, shapes.known, f'candidate{n}')} THEN candidate{n}"
        for n in range(len(ranks))
    )
    sources = {
        **{name: name for name in NAMES},
        **{key: f"dimensions[{n}]" for n, key in enumerate(DIMENSIONS, 1)},
        "ingest_date": "$ingest_date::DATE",
        "aggregate": "aggregate",
    }
    number = f"CASE WHEN is_first THEN 0 {proofs} ELSE -1 END::TINYINT"
    if any(shape.unmapped for shape in shapes.known):
        number = f"counted({number})"
    columns = ", ".join(f'{sources[column.name]} AS "{column.name}"' for column in COLUMNS)
    return f"""
        WITH lines AS (
            SELECT {", ".join(f"{name}::{name} AS {name}" for name in NAMES)}, {", ".join(PLACES)},
                copy_fields(unnest(string_split(chunk, chr(10)))) AS fields
            FROM chunks
        ), texts AS (
            SELECT *, copy_text(fields[dimensions_at]) AS object,
                array_field(fields, width, histogram_at) AS array_text
            FROM lines
        ), parsed AS (
            SELECT *, TRY(json_extract_string(object, [{paths}])) AS strings FROM texts
        ), firsts AS (
            SELECT *, coalesce(strings IS NOT NULL AND object = {_printed("strings", keys, [first])}, false) AS is_first
            FROM parsed
        ), printables AS (
            SELECT *,
                CASE WHEN is_first THEN NULL WHEN contains(object, '\\') THEN [{escaped}] ELSE strings END AS printable
            FROM firsts
        ), measured AS (
            SELECT *, CASE WHEN printable IS NOT NULL THEN strlen(object) - ({lengths}) END AS length FROM printables
        ), candidates AS (
            SELECT *{candidates} FROM measured
        ), shaped AS (
            SELECT *, {number} AS shape FROM candidates
        ), rows AS (
            SELECT {", ".join(NAMES)}, dimension_values(object, shape, strings) AS dimensions,
                array_json(array_text, '{ARRAY}') AS aggregate
            FROM shaped
        )
        SELECT {columns} FROM rows
    """


def _by_length(shapes: Sequence[Shape]) -> list[dict[int, int]]:
    """Numbers of shapes by the length of what they print around values.

    If a length is already used, the shape goes into a further dict.
    """
    ranks: list[dict[int, int]] = []
    for number, shape in enumerate(shapes):
        length = shape.length
        rank = next((rank for rank in ranks if length not in rank), None)
        if rank is None:
            ranks.append(rank := {})
        rank[length] = number
    return ranks


def _lookup(numbers: Mapping[int, int]) -> str:
    """A SQL list: element n (from 0) is the number of the shape of length n, or NULL."""
    return f"[{', '.join(str(numbers.get(length, 'NULL')) for length in range(max(numbers) + 1))}]"


def _printed(strings: str, keys: Sequence[str], shapes: Sequence[Shape], number: str | None = None) -> str:
    """SQL that puts an object's text together from its values, by the only shape or the one of that number.

    Where a shape lacks a key, a value of that key is still printed, so that the text does not match.
    """
    parts = []
    for n, key in sorted(enumerate(keys, 1), key=lambda item: (len(item[1]), item[1])):
        before = [shape.before.get(key, "") for shape in shapes]
        if any(before):
            parts += [_chosen(before, number), f"{strings}[{n}]"]
    return f"concat({', '.join([*parts, _chosen([shape.after for shape in shapes], number)])})"


def _chosen(texts: Sequence[str], number: str | None) -> str:
    """The text of that number, as SQL; none holds a single quote."""
    quoted = [f"'{text}'" for text in texts]
    return quoted[0] if len(set(texts)) == 1 else f"[{', '.join(quoted)}][{number} + 1]"
