"""What the query does in Python: read rows whose text no known shape (see `shapes`)
reproduces, and count the rows of shapes that have keys without a column."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock

import pyarrow

from mozagg2bq_assets.model.counts import UnmappedKeys
from mozagg2bq_assets.parquet.jsonb import dimension_values
from mozagg2bq_assets.parquet.shapes import LONGEST_TEXT, Shapes

# Rows that are read one by one, half a second's work, before their shapes are looked at.
MANY_ROWS = 20_000


class ShapesLearned(Exception):
    """Ends a query that would read many more rows one by one, of shapes that are known now."""


@dataclass
class ExactReader:
    """The two functions of one query, which DuckDB's threads call. `learned` are more shapes, after ShapesLearned."""

    shapes: Shapes
    learned: Shapes | None = None
    _read: int = 0
    _texts: list[str] = field(default_factory=list)
    _unmapped: UnmappedKeys = field(default_factory=UnmappedKeys)
    _rows: Counter[int] = field(default_factory=Counter)
    # Python may leave a thread between the reading of a count and its writing.
    _lock: Lock = field(default_factory=Lock)

    def dimensions(self, text: str) -> list[str | None]:
        """The values of DIMENSIONS. Raises ValueError for damaged text, and ShapesLearned."""
        with self._lock:
            self._read += 1
            if self._read <= MANY_ROWS:
                self._texts.append(text if len(text) <= LONGEST_TEXT else "")
                if self._read == MANY_ROWS:
                    self._learn()
            return dimension_values(text, self._unmapped)

    def _learn(self) -> None:
        learned = self.shapes.learn(self._texts)
        self._texts.clear()
        if len(learned.known) > len(self.shapes.known):
            self.learned = learned
            raise ShapesLearned

    def count(self, numbers: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
        """Count the rows of shapes with keys that have no column, by the number of their shape; gives numbers back."""
        for chunk in numbers.chunks:
            # Each number is one byte, and counting bytes is faster than Arrow's own functions.
            data = bytes(chunk.buffers()[1])[chunk.offset : chunk.offset + len(chunk)]
            with self._lock:
                for number in self._counted:
                    self._rows[number] += data.count(number)
        return numbers

    def unmapped(self) -> UnmappedKeys:
        """Keys that have no column, in all rows."""
        found = UnmappedKeys(self._unmapped)
        for number, rows in self._rows.items():
            for key in self.shapes.known[number].unmapped if rows else ():
                found.add(key, self.shapes.examples[key], rows)
        return found

    @cached_property
    def _counted(self) -> list[int]:
        return [number for number, shape in enumerate(self.shapes.known) if shape.unmapped]
