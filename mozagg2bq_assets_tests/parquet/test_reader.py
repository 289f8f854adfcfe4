"""Files where others keep them: folders named as Hive's layout does, and names with glob characters."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.parquet.reader import check_partition, count_channels, preview
from mozagg2bq_assets.parquet.writer import write_parquet
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets_tests.helpers.archives import archive_folder
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY
from mozagg2bq_assets_tests.helpers.runs import TYPE

PARTITION = Partition(TYPE, FIRST_DAY)


@pytest.mark.parametrize(
    "folder",
    ["aggregate_type=other/ds_nodash=20200101", "env=prod", "version=2", "data[1]", "data*", "what?", "a[b]c*d?"],
)
def test_folders(stack: object, tmp_path: Path, folder: str) -> None:
    """The very file is written and read, with its own columns, whatever lies beside it."""
    for decoy in ("data1", "data2", "whatx", "abcxdx"):
        (tmp_path / decoy).mkdir()
        names = pyarrow.table({"channel": ["decoy"], "version": ["1"]})
        pyarrow.parquet.write_table(names, tmp_path / decoy / "out.parquet")
    path = tmp_path / folder / "out.parquet"
    path.parent.mkdir(parents=True)
    assert write_parquet(open_archive(archive_folder("18"), PARTITION), FIRST_DAY, path).rows.total == 16
    assert check_partition(path, PARTITION) == count_channels(path)
    assert count_channels(path).total == 16
    assert len(preview(path)[0]) == 13


def test_no_parquet(tmp_path: Path) -> None:
    """What is none is refused by name, in a line."""
    (tmp_path / "out.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match=r"out\.parquet: unreadable Parquet") as raised:
        check_partition(tmp_path / "out.parquet", PARTITION)
    assert "\n" not in str(raised.value)
