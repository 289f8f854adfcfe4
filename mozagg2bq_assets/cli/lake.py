"""`mozagg2bq lake`: what the lake holds beside its days' current versions."""

import click

from mozagg2bq_assets.cli.options import debug_option, type_option, types
from mozagg2bq_assets.errors import DataError, OperatorError
from mozagg2bq_assets.lake.leftovers import StoredVersion, find_leftovers
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import LakeSettings, RunSettings


@click.command()
@type_option(required=False)
@click.option("--delete", is_flag=True, help="Remove them. Without this they are only listed.")
@debug_option
def clean(aggregate_type: AggregateType | None, delete: bool) -> None:
    """Find leftovers that no run can publish any more, of all days.

    These are versions that no manifest names and uploads that were not completed, older than twice MAX_RUN_HOURS.
    """
    lake, max_hours = Lake(LakeSettings.read()), RunSettings.read().max_run_hours
    attempts = [attempt for each in types(aggregate_type) for attempt in find_leftovers(lake, each, max_hours)]
    found = [attempt for attempt in attempts if isinstance(attempt, StoredVersion)]
    unknown = [attempt for attempt in attempts if isinstance(attempt, OperatorError)]
    for version in found:
        click.echo(_line(lake, version))
        if delete:
            version.remove(lake)
    size = sum(version.size for version in found) / 1e6
    what = "removed" if delete else "can go: --delete removes them" if found else "nothing to do"
    click.echo(f"{len(found)} leftover versions, {size:,.1f} MB: {what}")
    if unknown:
        raise DataError(f"{len(unknown)} versions were left alone: {unknown[0]}")


def _line(lake: Lake, version: StoredVersion) -> str:
    uploads = f", {len(version.uploads)} incomplete uploads" if version.uploads else ""
    return (
        f"s3://{lake.bucket}/{version.folder}/: {len(version.objects)} objects, {version.size / 1e6:,.1f} MB{uploads},"
        f" stored {version.stored_at:%Y-%m-%d %H:%M} UTC"
    )
