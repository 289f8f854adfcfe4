"""Make a stored archive anew: `python -m mozagg2bq_assets_tests.postgres.make_archives VERSION COMPRESSION`.

The server is the one that PG* in the environment names, and pg_dump that of PATH; both of that version. What the rows
are is asked of the server.
"""

import json
import os
import shutil
import subprocess
import sys

import psycopg

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import ds_nodash
from mozagg2bq_assets_tests.helpers.archives import ARCHIVES, EXPECTED
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY, Row, expected_rows, fill

TABLES = ("build_id_nightly_73_20191201", "build_id_nightly_cck_73_20191201103045", "build_id_beta_72_20191201")

ODD_ROWS = [
    Row('{"os": 1.10, "child": true, "label": {"b": [1, "x"], "a": null}, "metric": null}', "{1,2}"),
    Row('{"label": "x", "process": "gpu"}', "[0:1]={3,4}"),
    Row('["os"]', "{{1,2},{3,4}}"),
]


def main(version: str, compression: str) -> None:
    """Fill three tables, dump them, and write down their rows."""
    folder = ARCHIVES / version
    shutil.rmtree(folder, ignore_errors=True)
    archive = folder / "build_id" / ds_nodash(FIRST_DAY)
    archive.parent.mkdir(parents=True)
    with psycopg.connect(autocommit=True) as connection:
        for table in TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        sample.create_table(connection, TABLES[0])
        sample.insert(connection, TABLES[0], sample.EDGE_ROWS)
        fill(connection, TABLES[1], ODD_ROWS)
        fill(connection, TABLES[2], [])
        rows = sorted(expected_rows(connection, TABLES).elements(), key=str)
    command = ("pg_dump", "--format=directory", f"--compress={compression}", f"--file={archive}", "--table=build_id_*")
    subprocess.run(command, check=True, env=os.environ)
    (folder / EXPECTED).write_text(json.dumps([row[1:] for row in rows], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
