"""Manifests of all days, read again only where they have changed since they were read last.

A manifest that is damaged or could not be read is read again each time, so two calls give two error objects.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date

from mozagg2bq_assets.errors import Attempt
from mozagg2bq_assets.lake.manifest import AnyManifest, StageManifest
from mozagg2bq_assets.lake.store import Lake, ListedObject, day_of_manifest
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType

# A manifest is small: reading it is mostly waiting.
READERS = 32


@dataclass(frozen=True)
class ManifestCache:
    """What this process has read, by the object's URI and ETag."""

    _read: dict[str, tuple[str, Attempt[StageManifest]]] = field(default_factory=dict)

    def manifests(
        self, lake: Lake, kind: type[AnyManifest], aggregate_type: AggregateType
    ) -> dict[date, Attempt[AnyManifest]]:
        """The manifest of every day that has one, or what is wrong with it.

        Raises UserError or TransientError where S3 refuses or is away.
        """
        root = lake.key(kind.of, aggregate_type) + "/"
        objects = {
            day: found
            for found in lake.list(root)
            if (day := day_of_manifest(found.key.removeprefix(root))) is not None
        }
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(
                lambda item: self._manifest(lake, kind, Partition(aggregate_type, item[0]), item[1]), objects.items()
            )
        return {day: manifest for day, manifest in zip(objects, found, strict=True) if manifest is not None}

    def _manifest(
        self, lake: Lake, kind: type[AnyManifest], partition: Partition, listed: ListedObject
    ) -> Attempt[AnyManifest] | None:
        uri = f"s3://{lake.bucket}/{listed.key}"
        etag, manifest = self._read.get(uri, ("", None))
        if etag != listed.etag or not isinstance(manifest, kind):
            manifest = lake.read_or_error(kind, partition)
            if manifest is not None:
                self._read[uri] = (listed.etag, manifest)
        return manifest
