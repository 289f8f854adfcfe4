"""A day's tables to Parquet with dlt and connectorx, as a user would who does without this project.

Runs in an environment of its own (`.venv-dlt`), so it imports nothing of the project. `dimensions` stays JSON text, and
there are neither an archive nor counts.

    python -m benchmarks.dlt_export YYYY-MM-DD OUTPUT alone|parallel
"""

import os
import shutil
import sys

import dlt
import sqlalchemy
from dlt.sources.sql_database import sql_database


def main(day: str, output: str, mode: str) -> None:
    """Write every table of the day below a folder."""
    shutil.rmtree(output, ignore_errors=True)
    os.environ["DLT_DATA_DIR"] = f"{output}/.dlt"
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    user, password, database = (os.environ[name] for name in ("PGUSER", "PGPASSWORD", "PGDATABASE"))
    url = sqlalchemy.URL.create("postgresql", user, password, os.environ["PGHOST"], int(os.environ["PGPORT"]), database)
    with sqlalchemy.create_engine(url).connect() as connection:
        pattern = sqlalchemy.text("SELECT tablename FROM pg_tables WHERE tablename LIKE :pattern")
        found = connection.execute(pattern, {"pattern": f"submission_date_%_{day.replace('-', '')}"})
        names = [name for (name,) in found]
    source = sql_database(url.render_as_string(hide_password=False), table_names=names, backend="connectorx")
    if mode == "parallel":
        source = source.parallelize()
    pipeline = dlt.pipeline("day", destination=dlt.destinations.filesystem(output), dataset_name="day")
    pipeline.run(source, loader_file_format="parquet")


if __name__ == "__main__":
    main(*sys.argv[1:])
