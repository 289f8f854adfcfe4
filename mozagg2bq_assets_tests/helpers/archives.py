"""The stored archives that other versions of pg_dump have made."""

import json
from collections import Counter
from pathlib import Path

from mozagg2bq_assets.model.counts import TableCounts
from mozagg2bq_assets.postgres.archive import PartitionArchive
from mozagg2bq_assets.postgres.copytext import rows
from mozagg2bq_assets_tests import postgres
from mozagg2bq_assets_tests.helpers.rows import Rows

ARCHIVES = Path(postgres.__file__).with_name("archives")
EXPECTED = "expected.json"


def archive_folder(version: str) -> Path:
    """The folder of the archive that pg_dump of that version made."""
    return ARCHIVES / version / "build_id" / "20191201"


def archived_rows(version: str) -> Rows:
    """What the server of that version said its rows were, without their ingest date."""
    return Counter(map(tuple, json.loads((ARCHIVES / version / EXPECTED).read_text())))


def counted(archive: PartitionArchive) -> TableCounts:
    """Rows of each table, from reading every file to its end. Raises DataError for one that is not whole."""
    return TableCounts({file.table.name: sum(1 for _ in rows(file.path)) for file in archive.data_files})
