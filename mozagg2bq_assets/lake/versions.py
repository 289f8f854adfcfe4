"""The versions of a day that are kept: list them, and make an earlier one current again."""

from collections.abc import Iterator
from pathlib import Path

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.leftovers import complete_beside, stored_versions
from mozagg2bq_assets.lake.manifest import AnyManifest, DumpManifest, ParquetManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.partitions import Partition


def complete_versions(
    lake: Lake, kind: type[AnyManifest], partition: Partition
) -> Iterator[tuple[AnyManifest | DataError, bool]]:
    """The complete versions of a partition's stage, each with whether it is the current one: that first, then others,
    newest first.

    Where a manifest is damaged, the error stands in its place. If the current one is, its version is among the others.
    """
    current: AnyManifest | DataError | None
    try:
        current = lake.read(kind, partition)
    except DataError as error:
        current = error
    if current is not None:
        yield current, True
    root = lake.key(kind.of, partition.aggregate_type) + "/"
    found = stored_versions(root, lake.list(f"{root}{partition.ds_nodash}/"), ())
    for version in complete_beside(found, current.version if isinstance(current, kind) else None):
        try:
            yield lake.read_version(kind, partition, version), False
        except DataError as error:
            yield error, False


def restore_version(lake: Lake, partition: Partition, version: str | None, folder: Path) -> ParquetManifest:
    """Make a version of a Parquet file current: by default the newest one that is not. Its dump too, if it is kept.

    All files are read first, into `folder`; a dump that is damaged does not become current. Raises DataError where
    there is no such version, or its manifest or Parquet file is damaged; then nothing is changed.
    """
    if version is None:
        versions = complete_versions(lake, ParquetManifest, partition)
        earlier = [manifest for manifest, is_current in versions if not is_current]
        if not earlier:
            raise DataError(f"{partition} has no earlier version of its Parquet file (LAKE_VERSIONS)")
        if isinstance(earlier[0], DataError):
            raise earlier[0]
        parquet = earlier[0]
    else:
        parquet = lake.read_version(ParquetManifest, partition, version)
    lake.fetch(parquet, folder)
    try:
        dump = lake.read_version(DumpManifest, partition, parquet.details.raw_dump)
        lake.fetch(dump, folder)
    except DataError:
        dump = None
    if dump is not None:
        lake.publish(dump)
    lake.publish(parquet)
    return parquet
