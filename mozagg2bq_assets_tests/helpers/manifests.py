"""Manifests as tests make them."""

from datetime import UTC, date, datetime
from pathlib import Path

from mozagg2bq_assets.lake.manifest import ParquetDetails, ParquetManifest
from mozagg2bq_assets.model.counts import ChannelCounts, UnmappedKey
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType

TYPE = AggregateType.BUILD_ID
PARTITION = Partition(TYPE, date(2019, 12, 1))


def parquet_manifest(path: Path, version: str, run_id: str) -> ParquetManifest:
    """A manifest of one file."""
    return ParquetManifest(
        aggregate_type=TYPE,
        day=PARTITION.day,
        version=version,
        run=Run(run_id, run_id),
        committed_at=datetime.now(UTC),
        ingest_date=PARTITION.day,
        files=(describe(path),),
        rows=ChannelCounts({"nightly 73": 12}),
        details=ParquetDetails(
            raw_dump="r.0", engine="duckdb", duckdb="2.0", unmapped_keys={"process": UnmappedKey(1, '"gpu"')}
        ),
    )
