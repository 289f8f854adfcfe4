"""`make demo`: sample data from PostgreSQL to BigQuery through Dagster, then every count of every stage."""

from pathlib import Path
from tempfile import TemporaryDirectory

import click
from dagster import DagsterInstance, ExecuteInProcessResult

from mozagg2bq_assets.definitions import defs
from mozagg2bq_assets.defs.keys import job_name
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.commands import run
from mozagg2bq_assets.local.stack import Stack, running_stack
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.report import report_lines, reports


def main() -> int:
    """Run it; 0 if every count agrees."""
    click.echo("starting PostgreSQL, S3 and BigQuery on this machine …")
    # A stack of its own: that of `make dev` may be in use, and has somebody's data.
    with TemporaryDirectory(prefix="mozagg2bq-demo-") as folder, running_stack(stack := Stack(Path(folder))):
        with stack.administrator() as connection:
            days, tables = sample.days(), sum(1 for _ in sample.seed(connection))
        click.echo(f"{tables} sample tables; now from PostgreSQL to BigQuery …")
        results: list[bool] = []
        results += [run_job(aggregate_type, days) for aggregate_type in AggregateType]
        for report in reports(list(AggregateType), days, count_source=True):
            click.echo("\n".join(report_lines(report)))
            results.append(not report.differences)
    click.echo("every count agrees" if all(results) else "SOMETHING IS OFF, see above")
    return 0 if all(results) else 1


def run_job(aggregate_type: AggregateType, days: DayRange) -> bool:
    """The main job of a type over those days, as one Dagster run in this process.

    Raises KeyboardInterrupt where that ended the run.
    """
    first, *_, last = (days.start, *days)
    with DagsterInstance.get() as instance:
        result = (
            defs()
            .resolve_job_def(job_name(aggregate_type))
            .execute_in_process(
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": first.isoformat(),
                    "dagster/asset_partition_range_end": last.isoformat(),
                },
                run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
                raise_on_error=False,
            )
        )
    if was_interrupted(result):
        raise KeyboardInterrupt
    return result.success


def was_interrupted(result: ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C or a signal ended the run, which Dagster returns as a failure like any other."""
    # By value: the enum itself is not public.
    failures = (event.job_failure_data for event in result.all_events if event.is_run_failure)
    return any(data.failure_reason and data.failure_reason.value == "UNEXPECTED_TERMINATION" for data in failures)


if __name__ == "__main__":
    run(main)
