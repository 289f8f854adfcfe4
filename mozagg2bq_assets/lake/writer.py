"""What one run does to the lake: it commits versions, and removes those that belong to nobody any more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from mozagg2bq_assets.errors import DataError
from mozagg2bq_assets.lake.manifest import AnyManifest, StageManifest
from mozagg2bq_assets.lake.store import MANIFEST, Lake
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.runs import Run


@dataclass(frozen=True)
class LakeWriter:
    """The lake for one run. `is_running` says of a run id whether that run still goes on.

    Every method raises UserError where S3 cannot be reached or refuses.
    """

    lake: Lake
    run: Run
    is_running: Callable[[str], bool]

    def resumed(self, kind: type[AnyManifest], partition: Partition) -> AnyManifest | None:
        """What a run that this one repeats or resumes has committed; None where there is work to do."""
        try:
            manifest = self.lake.read(kind, partition)
        except DataError:
            return None  # it will be replaced
        return manifest if manifest is not None and self.run.continues(manifest.run) else None

    def commit(self, manifest: StageManifest, paths: Sequence[Path]) -> None:
        """Upload a version's files, then make it visible, then clean up. Until then readers see the version before.

        Files that the manifest names and `paths` does not are in the lake already.
        """
        self.lake.upload(paths, self.lake.key(manifest.of, manifest.partition.path, manifest.version))
        self.lake.publish(manifest)
        self.clean_up(manifest)

    def clean_up(self, manifest: StageManifest) -> None:
        """Remove the versions before this one, and those left behind by runs that have ended.

        A run that was killed before it came to this has left it to the next.
        """
        folder = self.lake.key(manifest.of, manifest.partition.path) + "/"
        keys = [key for key, _ in self.lake.list(folder)]
        self.lake.delete(
            key
            for key in keys
            if (version := key.removeprefix(folder).split("/")[0]) not in (MANIFEST, manifest.version)
            and self._is_abandoned(version, manifest.run)
        )

    def _is_abandoned(self, version: str, committer: Run) -> bool:
        run_id = run_of(version)
        return run_id == committer.run_id or not self.is_running(run_id)


def new_version(run_id: str) -> str:
    """A name for a new version, which says whose it is."""
    return f"{run_id}.{uuid4().hex[:8]}"


def run_of(version: str) -> str:
    """The id of the run that wrote a version."""
    return version.rpartition(".")[0]
