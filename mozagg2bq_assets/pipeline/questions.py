"""Questions to the lake: each day's Parquet file is fetched, checked against its manifest, asked and let go."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mozagg2bq_assets.bigquery.questions import Answer, Query
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import ParquetManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.parquet.questions import ask_file


def ask_lake(lake: Lake, query: Query, directory: Path) -> list[Answer]:
    """The answers of all days, day after day; one that several days give is returned once. Files go to `directory`.

    Raises UserError where no day has Parquet, DataError for a file that is damaged.
    """
    found: dict[tuple[Any, ...], Answer] = {}
    manifests = [lake.read(ParquetManifest, Partition(query.aggregate_type, day)) for day in query.days]
    if not any(manifests):
        raise UserError(f"the lake has no Parquet of {query.aggregate_type} on these days: materialize them")
    for manifest in manifests:
        if manifest is not None and manifest.files:
            day = DayRange(manifest.day, manifest.day + timedelta(days=1))
            with TemporaryDirectory(dir=directory) as folder:
                (path,) = lake.fetch(manifest, Path(folder))
                found |= {tuple(answer.values()): answer for answer in ask_file(path, replace(query, days=day))}
    return list(found.values())
