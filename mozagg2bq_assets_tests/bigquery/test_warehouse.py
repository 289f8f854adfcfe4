"""Tables as somebody else may have made them, jobs that exist already, and what is asked of the service."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from google.cloud import bigquery

from mozagg2bq_assets.bigquery.warehouse import SCHEMA, UPLOAD_REQUEST_BYTES, Warehouse, check_table, open_warehouse
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.writer import write_parquet
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets.settings import BigQuerySettings
from mozagg2bq_assets_tests.faults.test_transient import warehouse_through
from mozagg2bq_assets_tests.helpers.archives import archive_folder
from mozagg2bq_assets_tests.helpers.proxies import Answer, HttpProxy
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY

PARTITION = Partition(AggregateType.BUILD_ID, FIRST_DAY)


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A file of 16 rows."""
    return write_parquet(open_archive(archive_folder("18"), PARTITION), FIRST_DAY, tmp_path / "out.parquet").path


def test_a_job_that_exists_already(warehouse: Warehouse, parquet: Path) -> None:
    """A request that is repeated finds its job instead of starting another."""
    job_id = f"job-{uuid4()}"
    for _ in range(2):
        warehouse.load(PARTITION, parquet, job_id)
    assert warehouse.count_partition(PARTITION).total == 16


def test_a_file_goes_up_in_parts(warehouse: Warehouse, service: HttpProxy, parquet: Path) -> None:
    """A whole day would not be in memory. A part that the service does not take is sent again."""
    rows = pq.read_table(parquet)
    metrics = pa.array([token_hex(2 * UPLOAD_REQUEST_BYTES // rows.num_rows) for _ in range(rows.num_rows)])
    pq.write_table(rows.set_column(rows.schema.get_field_index("metric"), "metric", metrics), parquet)
    service.fail(1, lambda request: request.method == "PUT", Answer(503))
    warehouse_through(service, warehouse).load(PARTITION, parquet, f"job-{uuid4()}")
    sent = [len(request.body) for request in service.requests if request.method == "PUT"]
    assert sent[:2] == [UPLOAD_REQUEST_BYTES] * 2
    assert sum(sent[1:]) == parquet.stat().st_size
    assert max(sent) == UPLOAD_REQUEST_BYTES
    (row,) = warehouse.query(
        PARTITION.aggregate_type,
        f"SELECT SUM(LENGTH(metric)) AS size FROM `{warehouse.table_id(PARTITION.aggregate_type)}`",
        [],
    )
    assert row["size"] == pc.sum(pc.utf8_length(metrics)).as_py()


def test_jobs_are_looked_up_where_the_table_is(
    warehouse: Warehouse, parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of US and EU a job is not found without its location, which a conflict does not say."""
    job_id, asked = f"job-{uuid4()}", []
    warehouse.load(PARTITION, parquet, job_id)
    # The emulator's tables do not say where they are, as the service's do.
    monkeypatch.setattr(bigquery.Table, "location", property(lambda _: "EU"))
    connection: Any = warehouse.client._connection
    api_request = connection.api_request

    def note(**request: Any) -> Any:
        asked.append(request)
        return api_request(**request)

    monkeypatch.setattr(connection, "api_request", note)
    warehouse.load(PARTITION, parquet, job_id)
    lookups = [request for request in asked if request["path"].endswith(f"/jobs/{job_id}")]
    assert lookups
    assert all(request["query_params"]["location"] == "EU" for request in lookups)


def test_days_are_counted_with_a_filter_on_the_partition(warehouse: Warehouse, parquet: Path) -> None:
    """Only days in range are asked for."""
    kind = AggregateType.BUILD_ID
    assert warehouse.count_days(kind, DayRange(date(2015, 1, 1), date(2020, 1, 1))) == {}
    warehouse.load(PARTITION, parquet, f"job-{uuid4()}")
    assert warehouse.count_days(kind, DayRange(date(2015, 1, 1), date(2020, 1, 1))) == {FIRST_DAY: 16}
    assert warehouse.count_days(kind, DayRange(date(2015, 1, 1), FIRST_DAY)) == {}


def test_dataset_that_is_there(warehouse: Warehouse, parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not made again, which an account without that right could not."""
    warehouse.client.create_dataset(warehouse.dataset)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it asks to make a dataset that is there")

    monkeypatch.setattr(warehouse.client, "create_dataset", refuse)
    warehouse.load(PARTITION, parquet, f"job-{uuid4()}")
    assert warehouse.count_partition(PARTITION).total == 16


def other_columns(table: bigquery.Table) -> None:
    """One column fewer."""
    table.schema = SCHEMA[:-1]


def by_column(table: bigquery.Table) -> None:
    """Partitioned by a column."""
    table.time_partitioning = bigquery.TimePartitioning(field="ingest_date")


def not_partitioned(table: bigquery.Table) -> None:
    """Not partitioned."""
    table.time_partitioning = None


def partitions_that_expire(table: bigquery.Table) -> None:
    """Partitions that are gone after 60 days."""
    table.time_partitioning = bigquery.TimePartitioning(expiration_ms=60 * 24 * 3600 * 1000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_columns, "has other columns"),
        (by_column, "is not partitioned by ingestion day"),
        (not_partitioned, "is not partitioned by ingestion day"),
        (partitions_that_expire, "expire, so old days would be gone"),
    ],
)
def test_table_of_somebody_else(change: Callable[[bigquery.Table], None], message: str) -> None:
    """It is refused with the reason."""
    table = bigquery.Table("project.dataset.build_id_aggregates", schema=SCHEMA)
    table.time_partitioning = bigquery.TimePartitioning(type_=bigquery.TimePartitioningType.DAY)
    check_table(table)
    change(table)
    with pytest.raises(UserError, match=message):
        check_table(table)


def test_location(stack: object) -> None:
    """Datasets are made where the settings say, and queries run there."""
    assert open_warehouse(BigQuerySettings.read(location="europe-west1")).client.location == "europe-west1"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": "service_account"}'])
def test_unreadable_credentials(stack: object, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the variable."""
    (tmp_path / "credentials.json").write_text(text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "credentials.json"))
    with pytest.raises(UserError, match=r"^BigQuery, credentials: .*; check GOOGLE_APPLICATION_CREDENTIALS$"):
        open_warehouse(BigQuerySettings.read())
