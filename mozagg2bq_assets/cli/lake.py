"""`mozagg2bq lake`: the versions of the lake's days, and what is in it beside them."""

from collections.abc import Iterator
from typing import Any

import click

from mozagg2bq_assets.cli.options import (
    days_options,
    debug_option,
    json_option,
    print_json,
    quiet_option,
    type_option,
    types,
)
from mozagg2bq_assets.cli.progress import progress
from mozagg2bq_assets.errors import DataError, OperatorError
from mozagg2bq_assets.lake.leftovers import StoredVersion, find_leftovers
from mozagg2bq_assets.lake.manifest import MANIFESTS, DamagedVersion, StageManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.versions import complete_versions
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import LakeSettings, RunSettings

NOT_CURRENT = "not the current version: do not restore it; it goes when later versions take its place"


@click.command()
@type_option(required=False)
@click.option("--delete", is_flag=True, help="Remove them. Without this they are only listed.")
@json_option
@quiet_option
@debug_option
def clean(aggregate_type: AggregateType | None, delete: bool, as_json: bool) -> None:
    """Find leftovers that no run can publish any more, of all days.

    These are versions beyond LAKE_VERSIONS, those that were not completed, and uploads that were not, all older than
    twice MAX_RUN_HOURS.
    """
    lake, settings = Lake(LakeSettings.read()), RunSettings.read()
    found, unknown = list[StoredVersion](), list[OperatorError]()
    with progress("looking") as tell:
        for each in types(aggregate_type):
            for attempt in find_leftovers(lake, each, settings.max_run_hours, settings.lake_versions):
                if isinstance(attempt, OperatorError):
                    unknown.append(attempt)
                    continue
                found.append(attempt)
                tell(0, f"{len(found)} leftover versions")
                if delete:
                    attempt.remove(lake)
    if as_json:
        print_json([_leftover(lake, version) | {"removed": delete} for version in found])
    else:
        for version in found:
            click.echo(_line(lake, version))
        size = sum(version.size for version in found) / 1e6
        what = "removed" if delete else "can go: --delete removes them" if found else "nothing to do"
        click.echo(f"{len(found)} leftover versions, {size:,.1f} MB: {what}")
    if unknown:
        raise DataError(f"{len(unknown)} manifests cannot be read, what lies beside them was left alone: {unknown[0]}")


def _leftover(lake: Lake, version: StoredVersion) -> dict[str, Any]:
    return {
        "uri": f"s3://{lake.bucket}/{version.folder}/",
        "objects": len(version.objects),
        "bytes": version.size,
        "uploads": len(version.uploads),
        "stored_at": version.stored_at,
    }


def _line(lake: Lake, version: StoredVersion) -> str:
    uploads = f", {len(version.uploads)} incomplete uploads" if version.uploads else ""
    return (
        f"s3://{lake.bucket}/{version.folder}/: {len(version.objects)} objects, {version.size / 1e6:,.1f} MB{uploads},"
        f" stored {version.stored_at:%Y-%m-%d %H:%M} UTC"
    )


@click.command("list")
@type_option(required=False)
@days_options(required=True)
@json_option
@debug_option
def list_(aggregate_type: AggregateType | None, days: DayRange, as_json: bool) -> None:
    """List the versions of each stage and day.

    The current one has a star.
    """
    bad = list[DataError]()
    versions = _versions(Lake(LakeSettings.read()), aggregate_type, days, bad)
    if as_json:
        print_json([_version(manifest) | {"current": is_current} for manifest, is_current in versions])
    else:
        for manifest, is_current in versions:
            click.echo(
                f"{'*' if is_current else ' '} {manifest.of:<15}{manifest.partition} {manifest.version}:"
                f" {manifest.rows.total:,} rows, {manifest.total_size / 1e6:,.1f} MB, committed"
                f" {manifest.committed_at:%Y-%m-%d %H:%M} UTC by run {manifest.run.run_id}"
            )
    if bad:
        raise DataError(f"{len(bad)} versions are not listed, as their manifests are damaged: {bad[0]}")


@click.command()
@type_option(required=False)
@days_options(required=True)
@json_option
@quiet_option
@debug_option
def verify(aggregate_type: AggregateType | None, days: DayRange, as_json: bool) -> None:
    """Read and check every file of the versions of some days."""
    lake, good, bad = Lake(LakeSettings.read()), 0, list[DataError]()
    with progress("reading") as tell:
        for manifest, is_current in _versions(lake, aggregate_type, days, bad):
            tell(0, f"{manifest.of} of {manifest.partition}; {good} files so far")
            with scratch_folder() as folder:
                try:
                    good += len(lake.fetch(manifest, folder / "files"))
                except DamagedVersion as error:
                    bad.append(error if is_current else DataError(f"{error.what}: {NOT_CURRENT}"))
    if as_json:
        print_json({"files": good, "damaged": [str(error) for error in bad]})
    else:
        click.echo("".join(f"DAMAGED: {error}\n" for error in bad), nl=False)
        click.echo(f"{good} files are as their manifests say")
    if bad:
        raise DataError(f"{len(bad)} versions are damaged, the lines above say what to do")


def _version(manifest: StageManifest) -> dict[str, Any]:
    return {
        "stage": manifest.of,
        "aggregate_type": manifest.aggregate_type,
        "day": manifest.day,
        "version": manifest.version,
        "rows": manifest.rows.total,
        "bytes": manifest.total_size,
        "committed_at": manifest.committed_at,
        "run": manifest.run.run_id,
    }


def _versions(
    lake: Lake, aggregate_type: AggregateType | None, days: DayRange, bad: list[DataError]
) -> Iterator[tuple[StageManifest, bool]]:
    """The complete versions of some days, and whether each is current; what is wrong with others goes to `bad`."""
    for each in types(aggregate_type):
        for day in days:
            for kind in MANIFESTS:
                for attempt, is_current in complete_versions(lake, kind, Partition(each, day)):
                    if isinstance(attempt, DataError):
                        bad.append(attempt)
                    else:
                        yield attempt, is_current
