"""Damage is found, never passed on: whatever is wrong with a bare folder ends in an error that names file and place."""

import gzip
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from mozagg2bq_assets.errors import CountMismatch, DataError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.writer import ParquetFile, write_parquet
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.copytext import CHUNK
from mozagg2bq_assets_tests.helpers.archives import counted
from mozagg2bq_assets_tests.helpers.engines import dump, make_parquet, spark_engine

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TYPE = AggregateType.BUILD_ID
PARTITION = Partition(TYPE, date(2019, 12, 1))


def to_parquet(folder: Path) -> ParquetFile:
    """As `mozagg2bq to-parquet` does it."""
    return write_parquet(open_archive(folder, PARTITION), PARTITION.day, folder.parent / "out.parquet")


@pytest.fixture
def folder(administrator: psycopg.Connection, source: Postgres, tmp_path: Path) -> Path:
    """A bare folder with a whole archive of six tables."""
    sample.create_update_dates(administrator)
    for _ in sample.seed_partition(administrator, PARTITION, 0.001):
        pass
    return dump(source, [PARTITION], tmp_path)[PARTITION].archive.directory


def largest(folder: Path) -> Path:
    """The largest data file."""
    return max(folder.glob("*.dat.gz"), key=lambda path: path.stat().st_size)


def edit(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the text of the largest data file, in gzip data that is whole."""

    def damage(folder: Path) -> None:
        path = largest(folder)
        path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))

    return damage


def flip_bit(name: str, position: float) -> Callable[[Path], None]:
    """Flip a bit of a file, at a place between its begin (0) and end (1)."""

    def damage(folder: Path) -> None:
        path = largest(folder) if name == "data" else folder / name
        data = path.read_bytes()
        place = int(position * (len(data) - 1))
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            if name != "data" or not same_text(data, flipped):
                break
        path.write_bytes(flipped)

    return damage


def same_text(data: bytes, flipped: bytes) -> bool:
    """Whether nothing was damaged: what repeats an earlier text may point to another place that has the same."""
    try:
        return gzip.decompress(data) == gzip.decompress(flipped)
    except (OSError, EOFError, zlib.error):
        return False


def truncate(folder: Path) -> None:
    """Cut the largest data file in half."""
    data = largest(folder).read_bytes()
    largest(folder).write_bytes(data[: len(data) // 2])


def rename_file(folder: Path) -> None:
    """Give the largest data file another name."""
    largest(folder).rename(folder / "1.dat.gz")


def clear(folder: Path) -> None:
    """Leave nothing in the largest data file."""
    largest(folder).write_bytes(b"")


def empty(folder: Path) -> None:
    """Leave a table of contents of which nothing is complete here."""
    for path in folder.glob("*.dat.gz"):
        path.unlink()
    (folder / "toc.list").write_text("")


def set_line(number: int, line: bytes) -> Callable[[Path], None]:
    """Put another line in the place of one, counted from 1."""

    def change(text: bytes) -> bytes:
        lines = text.split(b"\n")
        lines[number - 1] = line
        return b"\n".join(lines)

    return edit(change)


def rename_table(folder: Path) -> None:
    """Change a version in toc.dat, as one flipped bit may; pg_restore does not mind."""
    toc = folder / "toc.dat"
    toc.write_bytes(toc.read_bytes().replace(b"build_id_nightly_73_", b"build_id_nightly_72_"))


ARRAY, OBJECT = b"\t{1,2,1}", b'{"os": "Linux"}'
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated gzip": (truncate, r"\d+\.dat\.gz, near byte \d+: damaged gzip data"),
    "flipped bit in the header": (flip_bit("data", 0.0), r"\d+\.dat\.gz, near byte \d+: damaged gzip data"),
    "flipped bit in the middle": (flip_bit("data", 0.5), r"\d+\.dat\.gz(, near byte \d+: damaged gzip data|.*)"),
    "flipped bit in the CRC": (flip_bit("data", 0.999), r"\d+\.dat\.gz, near byte \d+: damaged gzip data"),
    "missing data file": (lambda folder: largest(folder).unlink(), r"\d+\.dat\.gz: data file of \S+ is missing"),
    "extra data file": (lambda folder: (folder / "1.dat.gz").touch(), r"1\.dat\.gz: not a file of this archive"),
    "renamed data file": (rename_file, r"data file of \S+ is missing"),
    "one column": (set_line(3, b"{}"), r"\d+\.dat\.gz, line 3: a row does not have two columns"),
    "three columns": (set_line(3, b"{}\t{1}\t{2}"), r"\d+\.dat\.gz, line 3: a row does not have two columns"),
    "one column and three": (
        edit(lambda text: b"{}\n{}\t{1}\t{2}\n" + text), r"\d+\.dat\.gz, line 1: a row does not have two columns",
    ),
    "not UTF-8": (set_line(3, b'{"os": "\xff"}' + ARRAY), r"\d+\.dat\.gz, line 3: .*utf-8"),
    "JSON cut short": (set_line(3, b'{"os": "Lin' + ARRAY), r"\d+\.dat\.gz, line 3: JSON cut short"),
    "JSON goes on": (set_line(3, OBJECT + b"}" + ARRAY), r"\d+\.dat\.gz, line 3: JSON ends"),
    "JSON with a stray backslash": (set_line(3, b'{"os": "a\\\\x"}' + ARRAY), r"\d+\.dat\.gz, line 3: "),
    "raw control character": (set_line(3, b'{"os": "a\x01"}' + ARRAY), r"\d+\.dat\.gz, line 3: "),
    "carriage return": (set_line(3, b'{"os": "a\rb"}' + ARRAY), r"\d+\.dat\.gz, line 3: "),
    "no array": (set_line(3, OBJECT + b"\t1,2,1"), r"\d+\.dat\.gz, line 3: not an array of bigint"),
    "array cut short": (set_line(3, OBJECT + b"\t{1,2"), r"\d+\.dat\.gz, line 3: not an array of bigint"),
    "empty line": (set_line(3, b""), r"\d+\.dat\.gz, line 3: a row does not have two columns"),
    "no end marker": (edit(lambda text: text.replace(b"\\.\n", b"")), r"\d+\.dat\.gz: the end marker is missing"),
    "end marker in the middle": (
        set_line(3, b"\\."),
        r"\d+\.dat\.gz, line 3: an end marker `\\\.` stands in the middle of the file, .* of two columns",
    ),
    "row without end": (
        edit(lambda text: b"x" * 2**26 + ARRAY + b"\n" + text), r"\d+\.dat\.gz: a row of more than",
    ),
    "no table": (empty, r"20191201: no table in it"),
    "empty file": (clear, r"\d+\.dat\.gz"),
    "toc.dat damaged": (flip_bit("toc.dat", 0.0), r"toc\.dat: unreadable archive"),
    "toc.dat missing": (lambda folder: (folder / "toc.dat").unlink(), r"toc\.dat is missing"),
    "toc.dat names another table": (rename_table, r"toc\.list: toc\.dat has no entry"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    """The error names file and place, and there is no Parquet file."""
    damage(folder)
    with pytest.raises(DataError) as raised:
        to_parquet(folder)
    assert re.search(message, str(raised.value)), raised.value
    assert "\n" not in str(raised.value)
    assert not list(folder.parent.glob("*.parquet"))


def test_gzip_that_expands_without_end(folder: Path) -> None:
    """A file with more rows than it should have is left soon after that, however much it holds."""
    archive = open_archive(folder, PARTITION)
    expected = counted(archive)
    row = b'{"os": "Linux"}\t{1}\n'
    with gzip.open(largest(folder), "wb") as file:
        for _ in range(200):
            file.write(row * 10_000)
        file.write(b"\\.\n\n\n")
    with pytest.raises(CountMismatch) as raised:
        write_parquet(archive, PARTITION.day, folder.parent / "out.parquet", expected)
    ((_, _, found),) = raised.value.rows
    assert found < 2 * CHUNK / len(row) + expected.total


@pytest.mark.parametrize("name", ["truncated gzip", "one column", "no end marker"])
def test_damage_in_an_executor(folder: Path, spark: "SparkSession", name: str) -> None:
    """It is the same error where Spark's tasks find it."""
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(DataError, match=message):
        make_parquet(spark_engine(spark), [open_archive(folder, PARTITION)], folder.parent)
    assert not list(folder.parent.glob("*.parquet"))


@pytest.mark.parametrize("change", ["ALTER histogram TYPE text[]", "RENAME dimensions TO dims", "DROP histogram"])
def test_other_columns(
    folder: Path, administrator: psycopg.Connection, source: Postgres, tmp_path: Path, change: str
) -> None:
    """A table without one of the columns is refused by name, as it is dumped and in a folder of somebody else's."""
    table = f"build_id_nightly_73_{PARTITION.ds_nodash}"
    administrator.execute(f"ALTER TABLE {table} {change}")
    message = rf"toc\.dat: the columns of {table} are not dimensions jsonb, histogram bigint\[\]"
    (tmp_path / "anew").mkdir()
    with pytest.raises(DataError, match=message):
        dump(source, [PARTITION], tmp_path / "anew")
    bare = tmp_path / "bare" / PARTITION.path
    options = ("--format=directory", f"--file={bare}", f"--table={TYPE}_*")
    bare.parent.mkdir(parents=True)
    subprocess.run(("pg_dump", *options), env={**os.environ, **source.environment()}, check=True)
    with pytest.raises(DataError, match=message):
        to_parquet(bare)


def test_tables_of_another_day(folder: Path) -> None:
    """A folder without a list of its own has to hold that day alone."""
    (folder / "toc.list").unlink()
    assert to_parquet(folder).rows
    with pytest.raises(DataError, match="is no table of build_id 20191202"):
        open_archive(folder, Partition(TYPE, date(2019, 12, 2)))


def test_folder_of_the_predecessor(folder: Path, tmp_path: Path) -> None:
    """An archive that somebody else made has no list; its rows are the same."""
    bare = shutil.copytree(folder, tmp_path / "bare" / folder.name)
    (bare / "toc.list").unlink()
    assert to_parquet(bare).rows == to_parquet(folder).rows
