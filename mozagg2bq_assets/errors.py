"""Errors that an operator can act on: their text is one line that says what is wrong, and where."""

from collections.abc import Mapping, Sequence


class UserError(Exception):
    """Something the operator has to change: a setting, a permission, an argument."""


class DataError(Exception):
    """Data that is damaged, or missing where it was promised. Names the file or the table."""


class CountMismatch(DataError):
    """Two counts that should be equal and are not; `rows` has (name, expected, found) of each that differs."""

    def __init__(self, where: str, rows: Sequence[tuple[str, int, int]]) -> None:
        name, expected, found = rows[0]
        others = f", and {len(rows) - 1} more differ" if len(rows) > 1 else ""
        super().__init__(f"{where}: {name} should have {expected} rows and has {found}{others}")
        self.where, self.rows = where, rows

    def __reduce__(self) -> tuple[type, tuple[str, Sequence[tuple[str, int, int]]]]:
        """For Spark, whose executors pickle it: an exception is made anew with its text alone otherwise."""
        return type(self), (self.where, self.rows)


def check_counts(where: str, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Raise CountMismatch unless both give each name the same rows; a name without rows may be left out."""
    names = sorted(expected.keys() | found.keys())
    rows = [(name, expected.get(name, 0), found.get(name, 0)) for name in names]
    if differing := [row for row in rows if row[1] != row[2]]:
        raise CountMismatch(where, differing)
