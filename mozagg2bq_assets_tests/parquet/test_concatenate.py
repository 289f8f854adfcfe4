"""Concatenated files, as others read them: rows, and what leads to rows, which are offsets into the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow.parquet
import pytest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.parquet.concatenate import concatenate

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


@pytest.fixture(params=[write_with_duckdb, write_with_pyarrow], ids=["duckdb", "pyarrow"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Sequence[Path]:
    """Files of several row groups, of one and of none, by one writer."""
    paths = []
    for number, count in enumerate(ROWS):
        paths.append(tmp_path / f"{number}.parquet")
        request.param(paths[-1], sum(ROWS[:number]), count)
    return paths


@pytest.fixture
def joined(parts: Sequence[Path], tmp_path: Path) -> str:
    """All of them as one."""
    concatenate(parts, tmp_path / "all.parquet")
    return str(tmp_path / "all.parquet")


def test_footer(parts: Sequence[Path], joined: str) -> None:
    """It has the parts' row groups, leads to the same bytes, and has no page index, which would lead elsewhere."""
    footer = pyarrow.parquet.read_metadata(joined)
    groups = [footer.row_group(n) for n in range(footer.num_row_groups)]
    assert footer.num_rows == sum(ROWS)
    assert len(groups) == sum(pyarrow.parquet.read_metadata(part).num_row_groups for part in parts)
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    assert not any(column.has_offset_index or column.has_column_index for column in columns)
    assert led_to(joined) == [found for part in parts for found in led_to(str(part))]


def test_pyarrow_and_duckdb_read_it(joined: str) -> None:
    """All rows in their order, and single ones by Bloom filters."""
    numbers = list(range(sum(ROWS)))
    assert pyarrow.parquet.read_table(joined)["n"].to_pylist() == numbers
    file = duckdb.read_parquet(joined)
    assert [n for (n,) in file.project("n").fetchall()] == numbers
    found = file.filter("name = 'name 7'").project("n").fetchall()
    assert sorted(n for (n,) in found) == [n for n in numbers if n % 100 == 7]
    assert file.filter("name = 'nobody'").fetchall() == []


def test_spark_reads_it(joined: str, spark: "SparkSession") -> None:
    """All rows, and single ones by whatever leads Parquet's own library to them."""
    frame = spark.read.parquet(joined)
    assert sorted(row.n for row in frame.collect()) == list(range(sum(ROWS)))
    assert [row.name for row in frame.where(f"n = {sum(ROWS) - 1}").collect()] == ["name 0"]
    assert frame.where("name = 'name 7'").count() == sum(ROWS) // 100


def led_to(path: str) -> list[bytes]:
    """What is in a file where its footer says that pages, dictionaries and Bloom filters begin."""
    offsets = duckdb.execute(f"""
        SELECT unnest([data_page_offset, dictionary_page_offset, bloom_filter_offset])
        FROM parquet_metadata('{path}') ORDER BY row_group_id, column_id
    """).fetchall()
    content = Path(path).read_bytes()
    return [content[offset : offset + 16] for (offset,) in offsets if offset]


def test_one_file_is_itself(tmp_path: Path) -> None:
    """Nothing is lost that we do not know of: what is read of a footer is written back to the byte."""
    one, same = tmp_path / "one.parquet", tmp_path / "same.parquet"
    write_with_duckdb(one, 0, max(ROWS))
    concatenate([one], same)
    assert same.read_bytes() == one.read_bytes()


def test_no_parquet(tmp_path: Path) -> None:
    """What is no Parquet is refused by name."""
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match=r"text.parquet: not a Parquet file"):
        concatenate([tmp_path / "text.parquet"], tmp_path / "all.parquet")


def test_other_columns(tmp_path: Path) -> None:
    """Files that are not of one kind are refused by name."""
    write_with_duckdb(tmp_path / "numbers.parquet", 0, 1)
    duckdb.execute(f"COPY (SELECT 1 AS other) TO '{tmp_path / 'other.parquet'}' (FORMAT parquet)")
    with pytest.raises(
        DataError, match=r"other.parquet: its columns or its writer are not those of the files before it"
    ):
        concatenate([tmp_path / "numbers.parquet", tmp_path / "other.parquet"], tmp_path / "all.parquet")
