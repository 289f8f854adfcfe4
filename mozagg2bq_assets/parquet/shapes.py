"""Shapes of jsonb objects: which keys they have, and of which kind each value is.

PostgreSQL prints jsonb in one form only. So an object's text can be put together again from its shape and the values
that DuckDB found. If that gives the row's text, the values are right: reading left to right, each value can end at only
one place. Which shapes there are is seen in the data: in the first rows of every file, and in the rows that none of the
known shapes has printed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from mozagg2bq_assets.model.columns import DIMENSIONS
from mozagg2bq_assets.parquet.jsonb import members

# A day holds dozens at most; what none of them prints is read exactly, row by row.
MAX_SHAPES = 64
MAX_MEMBERS = 32
# Characters of a text that is looked at: many are held at once, and one may have millions.
LONGEST_TEXT = 10_000
# Other keys would need care in a path of DuckDB's, and the source has had none.
_PLAIN_KEY = re.compile(r"[\w.:-]{1,60}", re.ASCII)


class Kind(Enum):
    """How a value is printed: in quotes, as it is, or as `null`. Objects and arrays are of no kind."""

    TEXT = "text"
    LITERAL = "boolean or number"
    NULL = "null"


@dataclass(frozen=True)
class Shape:
    """The keys of an object, in jsonb's order, each with the kind of its value."""

    members: tuple[tuple[str, Kind], ...]

    @classmethod
    def of(cls, text: str) -> "Shape | None":
        """The shape of a text; None where it is damaged, no object, nested, or has odd keys or too many."""
        if not text.startswith("{"):
            return None
        found: list[tuple[str, Kind]] = []
        try:
            for key, value in members(text):
                if value[0] in "{[" or not _PLAIN_KEY.fullmatch(key) or len(found) == MAX_MEMBERS:
                    return None
                found.append((key, _kind(value)))
        except ValueError:
            return None
        return cls(tuple(found))

    @property
    def unmapped(self) -> list[str]:
        """Its keys that have no column."""
        return [key for key, _ in self.members if key not in DIMENSIONS]

    @cached_property
    def before(self) -> dict[str, str]:
        """For each key, the text between the previous value and its own. Members that are null belong to this text."""
        return self._printed[0]

    @cached_property
    def after(self) -> str:
        """What it prints after the last value."""
        return self._printed[1]

    @property
    def length(self) -> int:
        """Bytes of all that it prints around values; its keys are ASCII."""
        return sum(map(len, self.before.values())) + len(self.after)

    @cached_property
    def _printed(self) -> tuple[dict[str, str], str]:
        before, text = {}, "{"
        for n, (key, kind) in enumerate(self.members):
            text += f'{", " if n else ""}"{key}": '
            if kind is Kind.NULL:
                text += "null"
            else:
                quote = '"' if kind is Kind.TEXT else ""
                before[key], text = text + quote, quote
        return before, text + "}"


def _kind(value: str) -> Kind:
    if value.startswith('"'):
        return Kind.TEXT
    return Kind.NULL if value == "null" else Kind.LITERAL


ALL_TEXT = Shape(tuple((key, Kind.TEXT) for key in DIMENSIONS))


@dataclass(frozen=True)
class Shapes:
    """Known shapes, and an example of a value of each of their keys without a column."""

    known: Sequence[Shape] = (ALL_TEXT,)
    examples: Mapping[str, str] = field(default_factory=dict)

    def learn(self, texts: Iterable[str]) -> "Shapes":
        """Return these shapes and the texts' own, the most frequent in the texts first, at most MAX_SHAPES."""
        counter: Counter[Shape] = Counter()
        examples = dict(self.examples)
        for text in texts:
            shape = Shape.of(text)
            if shape is not None:
                counter[shape] += 1
                if shape.unmapped and not examples.keys() >= set(shape.unmapped):
                    examples = {**dict(members(text)), **examples}
        ordered = sorted({*self.known, *counter}, key=lambda shape: (-counter[shape], shape.length))
        return Shapes(ordered[:MAX_SHAPES], examples)

    @property
    def keys(self) -> list[str]:
        """The keys of all of them: those that have a column, in their order, and then the others."""
        return [*DIMENSIONS, *sorted({key for shape in self.known for key in shape.unmapped})]
