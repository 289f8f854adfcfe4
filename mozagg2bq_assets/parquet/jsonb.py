"""An exact reader of jsonb text, for the few rows that DuckDB cannot read as PostgreSQL does.

PostgreSQL prints jsonb in one form only, so a value that is not a string needs no interpretation: `->>` gives the very
characters that stand in the text (`1.10`, `{"a": 1}`), and a parser that understood them could only lose some.
"""

import json
import re
from collections.abc import Iterator, Sequence

from mozagg2bq_assets.model.columns import DIMENSIONS
from mozagg2bq_assets.model.counts import UnmappedKeys
from mozagg2bq_assets.postgres.copytext import END

_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR = re.compile(r"-?\d++(?:\.\d++)?|true|false|null")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)

# bigint[] as text: bounds where they do not start at 1, then nested braces where it has several dimensions.
ARRAY = r"(?:(?:\[-?\d+:-?\d+\])+=)?\{[-0-9,NUL{}]*\}"


def dimension_values(text: str, unmapped: UnmappedKeys) -> list[str | None]:
    """What `dimensions->>'key'` gives for each of DIMENSIONS; other keys go to `unmapped`.

    `text` is jsonb as PostgreSQL prints it. Raises ValueError where it is not; nested values are not parsed.
    """
    if not text.startswith("{"):
        if _value_end(text, 0) != len(text):
            raise ValueError("not JSON")
        return [None] * len(DIMENSIONS)
    values: dict[str, str | None] = {}
    for key, value in members(text):
        if key in DIMENSIONS:
            values[key] = _as_text(value)
        else:
            unmapped.add(key, value)
    return [values.get(key) for key in DIMENSIONS]


def _as_text(value: str) -> str | None:
    """`->>`: a string without its quotes and escapes, null as NULL, anything else as it stands."""
    if value.startswith('"'):
        string: str = json.loads(value)
        return string
    return None if value == "null" else value


def members(text: str) -> Iterator[tuple[str, str]]:
    """Each key of an object, which `text` is, and its value's text. Raises ValueError where it is damaged."""
    position = 1
    while text[position : position + 1] != "}":
        if position > 1:
            position = _after(text, position, ", ")
        key_end = _value_end(text, position)
        value_start = _after(text, key_end, ": ")
        value_end = _value_end(text, value_start)
        yield json.loads(text[position:key_end]), text[value_start:value_end]
        position = value_end
    if position + 1 != len(text):
        raise ValueError(f"JSON ends at character {position + 1}, its text does not")


def _after(text: str, position: int, expected: str) -> int:
    if not text.startswith(expected, position):
        raise ValueError(f"JSON cut short or damaged at character {position + 1}")
    return position + len(expected)


def _value_end(text: str, start: int) -> int:
    """Where the value that starts there ends. Nesting is counted, not recursed into, so it may be of any depth."""
    if match := _STRING.match(text, start) or _SCALAR.match(text, start):
        return match.end()
    depth = 0
    if text[start : start + 1] in ("{", "["):
        for token in _TOKEN.finditer(text, start):
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
            if depth == 0:
                return token.end()
    raise ValueError(f"JSON cut short or damaged at character {start + 1}")


def object_text(line: bytes, columns: Sequence[str]) -> str:
    """The text of `dimensions` in a line of COPY text, without COPY's escapes; what is not UTF-8 in it is replaced."""
    fields = line.split(b"\t", len(columns))
    return fields[min(columns.index("dimensions"), len(fields) - 1)].replace(b"\\\\", b"\\").decode("utf-8", "replace")


def check_row(line: bytes, columns: Sequence[str]) -> None:
    """Check one line of COPY text of a table with those columns. Raises ValueError saying what is wrong with it."""
    count = {2: "two"}.get(len(columns), len(columns))
    if line == END:
        raise ValueError(
            f"an end marker `\\.` stands in the middle of the file, where a row of {count} columns was expected"
        )
    fields = line.decode().split("\t")
    if len(fields) != len(columns):
        raise ValueError(f"a row does not have {count} columns")
    dimensions, histogram = (fields[columns.index(name)] for name in ("dimensions", "histogram"))
    if dimensions != "\\N":
        dimension_values(dimensions.replace("\\\\", "\\"), UnmappedKeys())
    if histogram != "\\N" and not re.fullmatch(ARRAY, histogram):
        raise ValueError(f"not an array of bigint: {histogram[:80]!r}")
