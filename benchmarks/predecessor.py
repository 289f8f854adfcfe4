"""The transform as the predecessor's Spark job did it, which ours is timed against.

Text through `spark.read.csv`, a Python UDF that takes type, date and id from each row's file name, a join with the
names of the tables, `from_json`, and one output file. Like it, it does not undo escapes and reads end markers as rows.
The names come from `pg_restore --list`, since the predecessor's own parser finds none in today's archives.

    python -m benchmarks.predecessor INPUT/TYPE/YYYYMMDD OUTPUT [MASTER]
"""

import sys
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as sf
from pyspark.sql import types as st

from mozagg2bq_assets.model.columns import DIMENSIONS
from mozagg2bq_assets.postgres.archive import list_archive

FILE_NAME = st.StructType(
    [
        st.StructField("aggregate_type", st.StringType()),
        st.StructField("ds_nodash", st.StringType()),
        st.StructField("table_id", st.IntegerType()),
    ]
)
OBJECT = st.StructType([st.StructField(name, st.StringType()) for name in DIMENSIONS])


@sf.udf(FILE_NAME)
def parse_file_name(path: str) -> tuple[str, str, int]:
    """Type, date and id from `…/TYPE/YYYYMMDD/ID.dat.gz`."""
    aggregate_type, day, name = path.split("/")[-3:]
    return aggregate_type, day, int(name.split(".")[0])


def main(directory: str, output: str, master: str = "local[*]") -> None:
    """Convert one folder."""
    spark = (
        SparkSession.builder.master(master)
        .config("spark.driver.memory", "8g")
        .config("spark.executor.memory", "2g")
        .config("spark.ui.enabled", "false")
        .config("spark.pyspark.python", sys.executable)
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    names = [(int(entry.dump_id), entry.table) for entry in list_archive(Path(directory)).entries if entry.table]
    tables = spark.createDataFrame(names, "table_id int, table_name string")
    rows = (
        spark.read.csv(f"{directory}/*.dat.gz", sep="\t", schema="dimensions string, histogram string")
        .withColumn("file", parse_file_name(sf.input_file_name()))
        .select("dimensions", "histogram", "file.*")
        .join(tables, "table_id")
        .withColumn("parts", sf.split("table_name", "_"))
        .withColumn("object", sf.from_json("dimensions", OBJECT))
        .select(
            sf.current_date().alias("ingest_date"),
            "aggregate_type",
            "ds_nodash",
            sf.element_at("parts", -3).alias("channel"),
            sf.element_at("parts", -2).alias("version"),
            "object.*",
            sf.translate("histogram", "{}", "[]").alias("aggregate"),
        )
    )
    rows.repartition(1).write.parquet(output, mode="overwrite")
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
