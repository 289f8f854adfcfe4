"""Errors that a user can act on: their text is one line that says what to do."""


class UserError(Exception):
    """Something the operator has to change: a setting, a permission, an argument."""


class DataError(Exception):
    """Data that is damaged, or two counts that should be equal and are not. Names the file or table."""
