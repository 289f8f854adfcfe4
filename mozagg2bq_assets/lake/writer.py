"""Change the lake for one run: commit versions, and remove those that no run needs any more.

Several runs, of one Dagster instance or of many, may write to one lake. None of them removes what another may still
publish. A run never publishes the same version twice, so a replaced version may be deleted once it is beyond those to
keep. (A commit that is tried again may repeat its version; it first checks that the files are still there.) A writer
gives up after MAX_RUN_HOURS, and what a writer unknown to this instance has stored is spared for twice that time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from mozagg2bq_assets.errors import DataError, OperatorError, UserError
from mozagg2bq_assets.lake.leftovers import StoredVersion, kept_versions, spared_since, stored_versions
from mozagg2bq_assets.lake.manifest import AnyManifest, StageManifest
from mozagg2bq_assets.lake.store import Lake, ListedObject
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.runs import Run


@dataclass(frozen=True)
class LakeWriter:
    """The lake for one run, which began at `started_at` (UTC) and gives up after `max_hours`.

    `versions` is how many a partition's stage keeps: the current one, and the newest complete ones before it.
    `is_running` says of a run id whether that run is still running; None for an unknown run. Every method but
    `clean_up` raises UserError or TransientError where S3 refuses or is away.
    """

    lake: Lake
    run: Run
    is_running: Callable[[str], bool | None]
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    max_hours: float = 24
    versions: int = 1

    def resumed(self, kind: type[AnyManifest], partition: Partition) -> AnyManifest | None:
        """What a run that this one repeats or resumes has committed; None where there is work to do."""
        try:
            manifest = self.lake.read(kind, partition)
        except DataError:
            return None  # it will be replaced
        return manifest if manifest is not None and self.run.continues(manifest.run) else None

    def commit(self, manifest: StageManifest, paths: Sequence[Path]) -> str | None:
        """Upload a version's files, then make it visible, then clean up. Until then readers see the version before.

        Files that the manifest names and `paths` does not are in the lake already. Returns a warning where the clean-up
        failed. Raises DataError where a file is not there, and UserError where this run has gone on for longer than it
        may; then the version before stays.
        """
        folder = self.lake.key(manifest.of, manifest.partition.path, manifest.version)
        self.lake.upload(paths, folder)
        self.lake.complete(manifest)
        listed = self._listed(manifest)
        if missing := self.lake.missing_file(manifest, listed):
            raise DataError(
                f"s3://{self.lake.bucket}/{missing}: is not there, or has another size, though it was just stored"
            )
        if datetime.now(UTC) - self.started_at > timedelta(hours=self.max_hours):
            raise UserError(
                f"the run has taken more than {self.max_hours:g} hours, so others may have removed what it stored:"
                " repeat it, with fewer days (PARTITIONS_PER_RUN) or more time (MAX_RUN_HOURS, alike on every machine)"
            )
        replaced = self._visible_version(type(manifest), manifest.partition)
        self.lake.publish(manifest)
        return self.clean_up(manifest, listed, replaced)

    def clean_up(
        self, manifest: StageManifest, listed: Sequence[ListedObject] | None = None, replaced: str | None = None
    ) -> str | None:
        """Remove versions beyond those to keep: the one that was replaced, and those of runs that have ended.

        `listed` is what the partition's stage has, if it was listed before. Returns a warning where the removal fails,
        as without the right to delete: what is committed is good all the same, and the next commit removes the rest.
        """
        try:
            self._clean_up(manifest, self._listed(manifest) if listed is None else listed, replaced)
        except OperatorError as error:
            return f"replaced or abandoned versions could not be removed from the lake: {error}"
        return None

    def _listed(self, manifest: StageManifest) -> list[ListedObject]:
        """All objects of that partition's stage; some stores list others too."""
        folder = self._folder(manifest)
        return [found for found in self.lake.list(folder) if found.key.startswith(folder)]

    def _clean_up(self, manifest: StageManifest, listed: Sequence[ListedObject], replaced: str | None) -> None:
        """What is visible is asked after the listing, as another run may have committed meanwhile."""
        uploads = list(self.lake.uploads(self._folder(manifest)))
        visible = self._visible_version(type(manifest), manifest.partition)
        if visible is None:
            return
        versions = stored_versions(self.lake.key(manifest.of, manifest.aggregate_type) + "/", listed, uploads)
        kept = kept_versions(versions, visible, self.versions)
        for stored in versions:
            if stored.version not in kept and (stored.version == replaced or self._is_abandoned(stored)):
                stored.remove(self.lake)

    def _folder(self, manifest: StageManifest) -> str:
        return self.lake.key(manifest.of, manifest.partition.path) + "/"

    def _visible_version(self, kind: type[AnyManifest], partition: Partition) -> str | None:
        """None where there is none, or its manifest is damaged."""
        try:
            manifest = self.lake.read(kind, partition)
        except DataError:
            return None
        return None if manifest is None else manifest.version

    def _is_abandoned(self, stored: StoredVersion) -> bool:
        """Whether no writer may still publish it.

        For one partition's stage this run publishes one version at a time, so its other unpublished versions are
        abandoned.
        """
        run_id = run_of(stored.version)
        running = False if run_id == self.run.run_id else self.is_running(run_id)
        return stored.stored_at < spared_since(self.max_hours) if running is None else not running


def new_version(run_id: str) -> str:
    """A name for a new version, which says whose it is."""
    return f"{run_id}.{uuid4().hex[:8]}"


def run_of(version: str) -> str:
    """The id of the run that wrote a version."""
    return version.rpartition(".")[0]
