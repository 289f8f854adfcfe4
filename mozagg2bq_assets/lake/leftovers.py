"""What is stored of each version, and which versions and incomplete uploads no run can publish any more."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.lake.manifest import MANIFESTS, StageManifest
from mozagg2bq_assets.lake.store import MANIFEST, IncompleteUpload, Lake, ListedObject
from mozagg2bq_assets.model.partitions import DayRange, parse_ds_nodash
from mozagg2bq_assets.model.tables import AggregateType


@dataclass
class StoredVersion:
    """What is stored under one version's name: the key of its folder, objects, and uploads that are not complete."""

    folder: str
    objects: list[ListedObject] = field(default_factory=list)
    uploads: list[IncompleteUpload] = field(default_factory=list)

    @property
    def version(self) -> str:
        """The version's name."""
        return self.folder.rpartition("/")[2]

    @property
    def day(self) -> date | None:
        """The day that it is of; None where its folder is not a day's."""
        return parse_ds_nodash(self.folder.split("/")[-2])

    @property
    def size(self) -> int:
        """Bytes of the objects."""
        return sum(found.size for found in self.objects)

    @property
    def stored_at(self) -> datetime:
        """When anything of it was stored or begun last."""
        return max([found.stored_at for found in self.objects] + [upload.started_at for upload in self.uploads])

    @property
    def completed_at(self) -> datetime | None:
        """When its manifest was stored beside its files; None where that is missing, so that it is not complete."""
        return next((found.stored_at for found in self.objects if found.key == f"{self.folder}/{MANIFEST}"), None)

    def remove(self, lake: Lake) -> None:
        """Remove all of it. Raises UserError or TransientError."""
        lake.abort(self.uploads)
        lake.delete(found.key for found in self.objects)


def stored_versions(
    root: str, objects: Iterable[ListedObject], uploads: Iterable[IncompleteUpload]
) -> list[StoredVersion]:
    """What is stored of each version; `root` is the key of a stage and type, and ends with a slash.

    Some stores list keys that do not begin as they were asked to: those are left out.
    """
    versions: dict[str, StoredVersion] = {}
    for found in objects:
        if folder := _version_folder(root, found.key):
            versions.setdefault(folder, StoredVersion(folder)).objects.append(found)
    for upload in uploads:
        if folder := _version_folder(root, upload.key):
            versions.setdefault(folder, StoredVersion(folder)).uploads.append(upload)
    return list(versions.values())


def versions_by_day(
    root: str, objects: Iterable[ListedObject], uploads: Iterable[IncompleteUpload]
) -> dict[date, list[StoredVersion]]:
    """The same by day; what lies in other folders is left out."""
    days: dict[date, list[StoredVersion]] = {}
    for stored in stored_versions(root, objects, uploads):
        if stored.day is not None:
            days.setdefault(stored.day, []).append(stored)
    return days


def _version_folder(root: str, key: str) -> str | None:
    """The folder of the version that an object lies in; None for a day's own manifest and for what is none of ours."""
    parts = key.removeprefix(root).split("/")
    return root + "/".join(parts[:2]) if key.startswith(root) and len(parts) > 2 else None


def complete_beside(versions: Iterable[StoredVersion], current: str | None) -> list[str]:
    """The complete versions but the current one, the newest first."""
    complete = [(stored.completed_at, stored.version) for stored in versions if stored.completed_at is not None]
    return [version for _, version in sorted(complete, reverse=True) if version != current]


def kept_versions(versions: Iterable[StoredVersion], current: str | None, count: int) -> set[str]:
    """The current version and the newest complete ones beside it, so many in all."""
    return {*complete_beside(versions, current)[: count - (current is not None)], *filter(None, [current])}


def spared_since(max_hours: float) -> datetime:
    """The moment since which objects are spared: a writer of which only `max_hours` is known may still publish them."""
    return datetime.now(UTC) - 2 * timedelta(hours=max_hours)


def find_leftovers(
    lake: Lake, aggregate_type: AggregateType, max_hours: float, count: int
) -> Iterator[StoredVersion | OperatorError]:
    """Yield the versions, of all days, that are not among the `count` to keep, and are too old for any run to publish.

    Where a manifest cannot be read, so that it is not known what it names, the error stands in the place of a version.
    Raises UserError or TransientError where S3 refuses or is away.
    """
    for kind in MANIFESTS:
        yield from _leftovers(lake, kind, aggregate_type, spared_since(max_hours), count)


def _leftovers(
    lake: Lake, kind: type[StageManifest], aggregate_type: AggregateType, since: datetime, count: int
) -> Iterator[StoredVersion | OperatorError]:
    root = lake.key(kind.of, aggregate_type) + "/"
    objects, uploads = list(lake.list(root)), list(lake.uploads(root))
    # After the listing, as a run may commit meanwhile.
    keys = (found.key.removeprefix(root) for found in objects)
    manifests = lake.manifests(kind, aggregate_type, keys, DayRange(date.min, date.max))
    for day, stored in versions_by_day(root, objects, uploads).items():
        manifest, old = manifests.get(day), [version for version in stored if version.stored_at < since]
        if isinstance(manifest, OperatorError):
            yield from [manifest] if old else []
        else:
            current = None if manifest is None else manifest.version
            kept = kept_versions(stored, current, count)
            yield from (version for version in old if version.version not in kept)
