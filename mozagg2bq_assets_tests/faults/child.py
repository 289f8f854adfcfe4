"""A run of all days as a process of its own, for signals: arguments are the proxies' URLs, and the days."""

import sys
from datetime import date

import boto3
from google.cloud import bigquery

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.pipeline.ingest import Services, ingest
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings, read_postgres
from mozagg2bq_assets_tests.helpers.runs import TYPE


def main(s3_url: str, bigquery_url: str, *days: str) -> None:
    """All stages of all days; exits with 0 when they are done."""
    partitions = [Partition(TYPE, date.fromisoformat(day)) for day in days]
    settings = BigQuerySettings.read()
    client = bigquery.Client(project=settings.project, client_options={"api_endpoint": bigquery_url})
    lake = Lake(LakeSettings.read(), boto3.client("s3", endpoint_url=s3_url))
    with scratch_folder() as scratch:
        services = Services(
            LakeWriter(lake, Run("child", "child"), lambda _: False),
            open_source(read_postgres()),
            DuckDBConverter(scratch / Stage.PARQUET),
            Warehouse(client, settings.dataset),
            5,
        )
        results = list(ingest(partitions, list(Stage), services, scratch))
    sys.exit(any(result.error for result in results))


if __name__ == "__main__":
    main(*sys.argv[1:])
