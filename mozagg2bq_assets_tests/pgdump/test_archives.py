"""Archives that other versions of pg_dump made and handed over as folders, compressed in different ways."""

import json
from collections import Counter
from pathlib import Path

import pytest

from mozagg2bq_assets.local.stack import Stack
from mozagg2bq_assets.pgdump.archive import open_day
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets_tests.conftest import Engine
from mozagg2bq_assets_tests.pgdump.make_archives import ARCHIVES, EXPECTED
from mozagg2bq_assets_tests.transform.test_rows import FIRST_DAY, parquet_rows


@pytest.mark.parametrize("version", ["15", "16", "18"])
def test_archive_of_every_age(stack: Stack, tmp_path: Path, engine: Engine, version: str) -> None:
    """The rows are those that the server of that version said it had, under the archive's own date."""
    archive = open_day(ARCHIVES / version / "build_id" / "20191201", AggregateType.BUILD_ID, FIRST_DAY)
    file = engine(archive, tmp_path / "out.parquet")
    rows = parquet_rows(file.path)
    expected = json.loads((ARCHIVES / version / EXPECTED).read_text())
    assert len(expected) == 16
    assert rows == Counter((archive.created, *row) for row in expected)
