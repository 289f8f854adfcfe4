"""Let one dump at a time read the source: an advisory lock of its server, so that it holds for all machines.

The lock belongs to a transaction, in a session beside the dump's. A pooler may give each transaction another session of
the server; a lock of the session would then stay there for ever. Ours works on a standby too, and ends with its
transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import psycopg

from mozagg2bq_assets.errors import Cancelled
from mozagg2bq_assets.postgres.connection import Postgres

KEY = int.from_bytes(b"mozagg2b")  # any number that nobody else takes
POLL_SECONDS = 1.0


@contextmanager
def reading_turn(source: Postgres, tell: Callable[[str], None], cancelled: Event) -> Iterator[None]:
    """Wait until nobody else of this project dumps from that database, and keep others waiting until the block ends.

    `tell` is called once if there is a wait. Raises OperatorError where the source cannot be reached, and Cancelled.
    """
    told = False
    with source.connect() as connection:
        while not _taken(connection):
            if not told:
                tell("waiting for another dump from this database to end")
                told = True
            if cancelled.wait(POLL_SECONDS):
                raise Cancelled
        yield


def _taken(connection: psycopg.Connection) -> bool:
    # No query parameters: a query with parameters would hold a snapshot open, which holds vacuum back.
    row = connection.execute(f"SELECT pg_try_advisory_xact_lock({KEY})".encode()).fetchone()
    if row != (True,):
        connection.rollback()
    return row == (True,)
