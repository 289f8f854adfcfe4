"""Concatenated files, as others read them: rows, and what leads to rows, which are offsets into the file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet
import pytest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.transform.concatenate import concatenate

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = (5_000, 0, 1, 20_000)
GROUP_ROWS = 2_048  # the least that DuckDB makes


def write_with_duckdb(path: Path, first: int, count: int) -> None:
    """With Bloom filters, where values repeat."""
    rows = f"SELECT i AS n, 'name ' || i % 100 AS name FROM range({first}, {first + count}) AS t(i)"
    duckdb.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE {GROUP_ROWS})")


def write_with_pyarrow(path: Path, first: int, count: int) -> None:
    """With a page index over many pages."""
    numbers = range(first, first + count)
    columns = {
        "n": pyarrow.array(numbers, pyarrow.int64()),
        "name": pyarrow.array([f"name {n % 100}" for n in numbers], pyarrow.string()),
    }
    pyarrow.parquet.write_table(
        pyarrow.table(columns), path, row_group_size=GROUP_ROWS, data_page_size=1024, write_page_index=True
    )


@pytest.fixture(params=["duckdb", "pyarrow"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[Path]:
    """Files of several row groups, of one and of none, by one writer."""
    write: Callable[[Path, int, int], None] = globals()[f"write_with_{request.param}"]
    paths = []
    for number, count in enumerate(ROWS):
        paths.append(tmp_path / f"{number}.parquet")
        write(paths[-1], sum(ROWS[:number]), count)
    return paths


def test_rows_and_lookups(parts: Sequence[Path], tmp_path: Path, spark: "SparkSession") -> None:
    """Readers of three projects find all rows, and single ones; none goes by a part's page index."""
    output = tmp_path / "all.parquet"
    concatenate(parts, output)
    numbers = list(range(sum(ROWS)))
    by_name = [n for n in numbers if n % 100 == 7]

    assert pyarrow.parquet.read_table(output)["n"].to_pylist() == numbers
    groups = pyarrow.parquet.read_metadata(output)
    assert groups.num_rows == len(numbers)
    assert groups.num_row_groups == sum(pyarrow.parquet.read_metadata(part).num_row_groups for part in parts)

    assert led_to(output) == [found for part in parts for found in led_to(part)]
    file = duckdb.read_parquet(str(output))
    assert [n for (n,) in file.project("n").fetchall()] == numbers
    assert sorted(n for (n,) in file.filter("name = 'name 7'").project("n").fetchall()) == by_name
    assert file.filter("name = 'nobody'").fetchall() == []

    frame = spark.read.parquet(str(output))
    assert frame.count() == len(numbers)
    assert sorted(row.n for row in frame.where("name = 'name 7'").collect()) == by_name
    assert [row.name for row in frame.where("n = 19999").collect()] == ["name 99"]


def led_to(path: Path) -> list[bytes]:
    """What is in a file where its footer says that pages, dictionaries and Bloom filters begin."""
    offsets = duckdb.execute(f"""
        SELECT unnest([data_page_offset, dictionary_page_offset, bloom_filter_offset])
        FROM parquet_metadata('{path}') ORDER BY row_group_id, column_id
    """).fetchall()
    content = path.read_bytes()
    return [content[offset : offset + 16] for (offset,) in offsets if offset]


def test_one_file_is_itself(tmp_path: Path) -> None:
    """Nothing is lost that we do not know of: what is read of a footer is written back to the byte."""
    one, same = tmp_path / "one.parquet", tmp_path / "same.parquet"
    write_with_duckdb(one, 0, max(ROWS))
    concatenate([one], same)
    assert same.read_bytes() == one.read_bytes()


def test_other_columns(tmp_path: Path) -> None:
    """Files that are not of one kind are refused by name."""
    write_with_duckdb(tmp_path / "numbers.parquet", 0, 1)
    duckdb.execute(f"COPY (SELECT 1 AS other) TO '{tmp_path / 'other.parquet'}' (FORMAT parquet)")
    with pytest.raises(DataError, match=r"other.parquet: its columns are not those of the files before it"):
        concatenate([tmp_path / "numbers.parquet", tmp_path / "other.parquet"], tmp_path / "all.parquet")
