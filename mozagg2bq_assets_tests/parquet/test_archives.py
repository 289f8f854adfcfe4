"""Archives that other versions of pg_dump made and handed over as folders, compressed in different ways."""

from collections import Counter
from pathlib import Path

import pytest

from mozagg2bq_assets.local.stack import Stack
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets_tests.helpers.archives import archive_folder, archived_rows
from mozagg2bq_assets_tests.helpers.engines import Engine, make_parquet
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY, parquet_rows


@pytest.mark.parametrize("version", ["15", "16", "18"])
def test_archive_of_every_age(stack: Stack, tmp_path: Path, engine: Engine, version: str) -> None:
    """The rows are those that the server of that version said it had, under the archive's own date."""
    archive = open_archive(archive_folder(version), Partition(AggregateType.BUILD_ID, FIRST_DAY))
    (file,) = make_parquet(engine, [archive], tmp_path).values()
    rows = parquet_rows(file.path)
    expected = archived_rows(version)
    assert expected.total() == 16
    assert rows == Counter((archive.created, *row) for row in expected.elements())
