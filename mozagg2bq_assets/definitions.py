"""What Dagster loads."""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from dagster import (
    AssetsDefinition,
    AssetSpec,
    BetaWarning,
    Definitions,
    definitions,
    get_dagster_logger,
    in_process_executor,
    with_source_code_references,
)

from mozagg2bq_assets.defs.alarms import alarms_sensor
from mozagg2bq_assets.defs.assets import daily_stages
from mozagg2bq_assets.defs.histograms import buckets, histograms
from mozagg2bq_assets.defs.late_data import late_data_sensor, up_to_date
from mozagg2bq_assets.defs.partitions import daily_partitions
from mozagg2bq_assets.defs.reconciliation import reconciliation
from mozagg2bq_assets.defs.resources import resources_from_settings
from mozagg2bq_assets.defs.schedules import HISTOGRAMS_JOB, JOBS, RECONCILIATION_JOB, schedules
from mozagg2bq_assets.defs.specs import source_tables
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import RunSettings, check_variables


@definitions
def defs() -> Definitions:
    """The project as the environment configures it.

    Raises UserError, which names every variable that is bad. Those that are missing fail the runs that need them.
    """
    _warn_of(tuple(check_variables()))
    settings = RunSettings.read()
    daily = daily_partitions(settings.partitions_start)
    return Definitions(
        assets=_with_code_references(
            [source_tables(t) for t in AggregateType]
            + [daily_stages(t, daily, settings) for t in AggregateType]
            + [histograms(t) for t in AggregateType]
        ),
        asset_checks=[
            *(reconciliation(t, settings.partitions_start) for t in AggregateType),
            *(up_to_date(t) for t in AggregateType),
            *(buckets(t, settings.partitions_start) for t in AggregateType),
        ],
        jobs=[*JOBS, RECONCILIATION_JOB, HISTOGRAMS_JOB],
        schedules=schedules(daily, settings),
        sensors=[*(late_data_sensor(t, daily) for t in AggregateType), alarms_sensor()],
        resources=resources_from_settings(),
        # One process for all stages of a run: another would import everything again.
        executor=in_process_executor,
    )


@cache  # Dagster loads definitions twice.
def _warn_of(missing: Sequence[str]) -> None:
    if missing:
        get_dagster_logger().warning(f"not set, so that runs which need them will fail: {', '.join(missing)}")


def _with_code_references(assets: Sequence[AssetsDefinition | AssetSpec]) -> Sequence[Any]:
    """The assets, with links to their code. Dagster 1.13 warns that it may still change these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)
        return with_source_code_references(assets)
