"""What nothing can beat: reading a day's archive, and having the server write its rows.

python -m benchmarks.floors decompress INPUT/TYPE/YYYYMMDD
python -m benchmarks.floors copy TYPE YYYY-MM-DD
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from isal import igzip
from psycopg import sql

from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.tables import list_tables
from mozagg2bq_assets.settings import read_postgres

CHUNK = 2**20


def decompress(directory: str) -> None:
    """Read each file to its end with ISA-L, one after the other."""
    for path in Path(directory).glob("*.dat.gz"):
        with igzip.open(path) as text:  # type: ignore[no-untyped-call]
            while text.read(CHUNK):
                pass


def copy(aggregate_type: str, day: str) -> None:
    """COPY each table to nowhere, over as many connections as there are cores."""
    source, kind = open_source(read_postgres()), AggregateType.parse(aggregate_type)
    with source.connect() as connection:
        names = [table.name for table in list_tables(connection, [Partition(kind, date.fromisoformat(day))])]

    def copy_some(share: list[str]) -> None:
        with source.connect() as connection, connection.cursor() as cursor:
            for name in share:
                with cursor.copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(name))) as rows:
                    for _ in rows:
                        pass

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(copy_some, (names[n::cores] for n in range(cores))))


if __name__ == "__main__":
    floors: dict[str, Callable[..., None]] = {"decompress": decompress, "copy": copy}
    floors[sys.argv[1]](*sys.argv[2:])
