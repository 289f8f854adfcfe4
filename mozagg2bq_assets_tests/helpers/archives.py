"""The stored archives that other versions of pg_dump have made."""

import json
from collections import Counter
from pathlib import Path

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
