"""`make demo`: sample data from PostgreSQL to BigQuery through Dagster, then every count of every stage."""

import sys
from datetime import timedelta

import click

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack, running
from mozagg2bq_assets.partitions import partition_key
from mozagg2bq_assets.reconcile import Range
from mozagg2bq_assets.report import print_reports, reports
from mozagg2bq_assets.schema import AggregateType


def main() -> int:
    """Run it; 0 if every count agrees."""
    stack = Stack()
    end = sample.FIRST_DAY + timedelta(days=sample.DAYS)
    click.echo("starting PostgreSQL, S3 and BigQuery on this machine …")
    with running(stack):
        with stack.administrator() as connection:
            tables = sum(1 for _ in sample.seed(connection))
        click.echo(f"{tables} sample tables; now from PostgreSQL to BigQuery …")
        results = [run_job(aggregate_type) for aggregate_type in AggregateType]

        agreed = print_reports(reports(list(AggregateType), Range(sample.FIRST_DAY, end, counted=True)))
    succeeded = all(results)
    click.echo("every count agrees" if succeeded and agreed else "SOMETHING IS OFF, see above")
    return 0 if succeeded and agreed else 1


def run_job(aggregate_type: AggregateType) -> bool:
    """The main job of a type over all sample days, as one Dagster run in this process."""
    from dagster import DagsterInstance

    from mozagg2bq_assets.definitions import defs

    last = sample.FIRST_DAY + timedelta(days=sample.DAYS - 1)
    with DagsterInstance.get() as instance:
        result = defs.resolve_job_def(f"{aggregate_type}_job").execute_in_process(
            instance=instance,
            tags={
                "dagster/asset_partition_range_start": partition_key(sample.FIRST_DAY),
                "dagster/asset_partition_range_end": partition_key(last),
            },
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            raise_on_error=False,
        )
    return result.success


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
