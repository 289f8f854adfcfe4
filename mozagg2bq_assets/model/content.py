"""Content sums: what rows hold, in three numbers that PostgreSQL, DuckDB and BigQuery compute alike.

The recipe, over the 13 columns in their order: a value is written as its length in bytes of UTF-8, a colon and its
text, NULL as `-`; these are put together, and MD5 of that is taken. The sum has the number of rows, and the sums of the
first and of the second 32 bits of their hashes. Rows in another order have the same sum. The sum changes if a value
differs, moves to another column or is NULL instead of empty, or if one row is doubled and another missing.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class ContentSum(NamedTuple):
    """The sum of some rows: their number and, over the first 64 bits of each row's hash, the sums of its 32-bit halves.

    `first` is the sum of the first halves, `second` that of the second ones.
    """

    rows: int
    first: int
    second: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.first:x}.{self.second:x}"


NOTHING = ContentSum(0, 0, 0)

# By `channel version`.
ContentSums: TypeAlias = Mapping[str, ContentSum]
