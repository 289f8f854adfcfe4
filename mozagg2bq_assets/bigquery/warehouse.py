"""BigQuery: the two tables, made on first use, loads of one partition, and counts.

Tables are partitioned by ingestion time, by day: a load into `table$YYYYMMDD` replaces that partition alone, atomically
and free of charge, and `_PARTITIONDATE` then is the date of the aggregate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from itertools import count
from pathlib import Path
from threading import Lock
from uuid import uuid4

from google.api_core.exceptions import Conflict, NotFound
from google.cloud import bigquery
from google.cloud.bigquery import client as google_client
from google.cloud.bigquery.retry import DEFAULT_RETRY

from mozagg2bq_assets.bigquery.errors import bigquery_errors
from mozagg2bq_assets.errors import UserError, brief
from mozagg2bq_assets.model.columns import COLUMNS
from mozagg2bq_assets.model.content import ContentSum, ContentSums
from mozagg2bq_assets.model.counts import ChannelCounts
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.settings import BigQuerySettings

# The client would try for ten minutes to reach a server that is not there, in silence. `Patience` tries for longer, and
# says so.
RETRY = DEFAULT_RETRY.with_timeout(6)
UPLOAD_RETRIES = 2

# Google's client holds in memory what it sends in one request, which would be a whole day, and has no option for it.
UPLOAD_REQUEST_BYTES = 8 << 20
google_client._DEFAULT_CHUNKSIZE = UPLOAD_REQUEST_BYTES

SCHEMA = [bigquery.SchemaField(c.name, c.bigquery_type, mode=c.mode, description=c.description) for c in COLUMNS]

CLUSTERING = {
    AggregateType.SUBMISSION_DATE: ("ds_nodash", "version", "metric", "channel"),
    AggregateType.BUILD_ID: ("metric", "channel", "os", "version"),
}

# One upload uses the whole bandwidth, so uploads take turns. The load jobs after them are waited for side by side.
_UPLOAD = Lock()

_IN_RANGE = "_PARTITIONDATE >= @start AND _PARTITIONDATE < @end"


@dataclass(frozen=True)
class Warehouse:
    """One dataset. Every method raises UserError where BigQuery refuses, TransientError where it is away."""

    client: bigquery.Client
    dataset: str
    kind: str = "aggregates"

    def probe(self) -> "Warehouse":
        """The same dataset, with tables of its own, which nobody else uses."""
        return replace(self, kind=f"doctor_{uuid4().hex}")

    def table_id(self, aggregate_type: AggregateType) -> str:
        """`project.dataset.table` of a type."""
        return f"{self.client.project}.{self.dataset}.{aggregate_type}_{self.kind}"

    def view_id(self, aggregate_type: AggregateType) -> str:
        """`project.dataset.view` of a type's histograms."""
        return f"{self.client.project}.{self.dataset}.{aggregate_type}_histograms"

    def partition_id(self, partition: Partition) -> str:
        """`project.dataset.table$YYYYMMDD` of a partition."""
        return f"{self.table_id(partition.aggregate_type)}${partition.ds_nodash}"

    def has_table(self, aggregate_type: AggregateType) -> bool:
        """Whether the type's table has been made."""
        return self._table(self.table_id(aggregate_type)) is not None

    def has_view(self, aggregate_type: AggregateType) -> bool:
        """Whether the view of the type's histograms has been made."""
        return self._table(self.view_id(aggregate_type)) is not None

    def load(
        self, partition: Partition, parquet: Path, job_id: str, uploaded: Callable[[], None] = lambda: None
    ) -> None:
        """Replace one partition by a Parquet file's rows; `uploaded` is called after the upload, before the job ends.

        A job of that id that exists already (from a request whose answer was lost) is waited for instead. If it has
        failed, its id can never be used again, so the next try appends a number to it.
        """
        table = self.ensure_table(partition.aggregate_type)
        numbered = (f"{job_id}-{n}" if n else job_id for n in count())
        with bigquery_errors(self.partition_id(partition)):
            while not self._load(partition, parquet, next(numbered), table.location, uploaded):
                pass

    def _load(
        self, partition: Partition, parquet: Path, job_id: str, location: str, uploaded: Callable[[], None]
    ) -> bool:
        """Run a load job; False where a job of that id was there already and had failed. Raises the job's error."""
        destination = self.partition_id(partition)
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            schema=SCHEMA,
        )
        try:
            with _UPLOAD, parquet.open("rb") as file:
                job = self.client.load_table_from_file(
                    file,
                    destination,
                    job_id=job_id,
                    location=location,
                    job_config=config,
                    num_retries=UPLOAD_RETRIES,
                )
            uploaded()
            job.result(retry=RETRY)
        except Conflict:
            # The conflict does not say where the job is, and outside of US and EU it is not found without that.
            existing = self.client.get_job(job_id, location=location, retry=RETRY)
            if existing.done() and existing.error_result:
                return False
            existing.result(retry=RETRY)
        return True

    def count_partition(self, partition: Partition) -> ChannelCounts:
        """Rows of one partition by `channel version`."""
        query = (
            "SELECT CONCAT(channel, ' ', version) AS name, COUNT(*) AS row_count"
            f" FROM `{self.table_id(partition.aggregate_type)}` WHERE _PARTITIONDATE = @day GROUP BY name"
        )
        parameter = bigquery.ScalarQueryParameter("day", "DATE", partition.day)
        rows = self.query(partition.aggregate_type, query, [parameter])
        return ChannelCounts({row["name"]: row["row_count"] for row in rows})

    def count_days(self, aggregate_type: AggregateType, days: DayRange) -> dict[date, int]:
        """Rows of each of those days that has some, from one query that reads no bytes. Empty without a table.

        A table may ask for a filter on the partition in every query.
        """
        query = (
            f"SELECT _PARTITIONDATE AS day, COUNT(*) AS row_count FROM `{self.table_id(aggregate_type)}`"
            f" WHERE {_IN_RANGE} GROUP BY day ORDER BY day"
        )
        if not self.has_table(aggregate_type):
            return {}
        return {row["day"]: row["row_count"] for row in self.query(aggregate_type, query, _bounds(days))}

    def content_sums(self, aggregate_type: AggregateType, days: DayRange) -> dict[date, ContentSums]:
        """Sums, as `model.content` has them, of each of those days by `channel version`. Empty without a table."""
        if not self.has_table(aggregate_type):
            return {}
        sums: dict[date, dict[str, ContentSum]] = {}
        for row in self.query(aggregate_type, _content_query(self.table_id(aggregate_type)), _bounds(days)):
            sums.setdefault(row["day"], {})[row["name"]] = ContentSum(row["row_count"], row["first"], row["second"])
        return dict(sums)

    def content_bytes(self, aggregate_type: AggregateType, days: DayRange) -> int:
        """Bytes that BigQuery would read, and charge for, to give the content sums of those days (a dry run)."""
        if not self.has_table(aggregate_type):
            return 0
        config = bigquery.QueryJobConfig(query_parameters=_bounds(days), dry_run=True, use_query_cache=False)
        with bigquery_errors(self.table_id(aggregate_type)):
            query = _content_query(self.table_id(aggregate_type))
            return int(self.client.query(query, job_config=config, retry=RETRY).total_bytes_processed or 0)

    def query(
        self, aggregate_type: AggregateType, query: str, parameters: Sequence[bigquery.ScalarQueryParameter]
    ) -> list[bigquery.Row]:
        """The rows of a query on a type's table or view."""
        config = bigquery.QueryJobConfig(query_parameters=list(parameters))
        with bigquery_errors(self.table_id(aggregate_type)):
            # A run tries again by itself, so the client does not begin a job again.
            job = self.client.query(query, job_config=config, retry=RETRY, job_retry=None)
            return list(job.result(retry=RETRY, job_retry=None))

    def _table(self, name: str) -> bigquery.Table | None:
        with bigquery_errors(name):
            try:
                return self.client.get_table(name, retry=RETRY)
            except NotFound:
                return None

    def drop_table(self, aggregate_type: AggregateType) -> None:
        """Remove a type's table, and all that is in it."""
        with bigquery_errors(self.table_id(aggregate_type)):
            self.client.delete_table(self.table_id(aggregate_type), retry=RETRY, not_found_ok=True)

    def ensure_table(self, aggregate_type: AggregateType) -> bigquery.Table:
        """Create dataset and table on first use. Raises UserError for a table that is not as it should be."""
        table = self._table(self.table_id(aggregate_type))
        if table is None:
            table = bigquery.Table(self.table_id(aggregate_type), schema=SCHEMA)
            table.time_partitioning = bigquery.TimePartitioning(type_=bigquery.TimePartitioningType.DAY)
            table.clustering_fields = list(CLUSTERING[aggregate_type])
            with bigquery_errors(self.table_id(aggregate_type)):
                self._ensure_dataset()
                table = self.client.create_table(table, exists_ok=True, retry=RETRY)
        check_table(table)
        return table

    def _ensure_dataset(self) -> None:
        """Make it where it is not there: an account that may write to it need not have the right to make one."""
        name = f"{self.client.project}.{self.dataset}"
        try:
            self.client.get_dataset(name, retry=RETRY)
        except NotFound:
            self.client.create_dataset(name, exists_ok=True, retry=RETRY)


def _bounds(days: DayRange) -> list[bigquery.ScalarQueryParameter]:
    """The parameters of `_IN_RANGE`."""
    return [
        bigquery.ScalarQueryParameter(name, "DATE", day) for name, day in (("start", days.start), ("end", days.end))
    ]


def _content_query(table: str) -> str:
    """Content sums by day and `channel version`."""
    values = (f"CAST(`{column.name}` AS STRING)" for column in COLUMNS)
    written = ", ".join(f"IFNULL(CONCAT(CAST(BYTE_LENGTH({v}) AS STRING), ':', {v}), '-')" for v in values)
    return f"""
        SELECT day, name, COUNT(*) AS row_count,
            SUM(CAST(CONCAT('0x', SUBSTR(hash, 1, 8)) AS INT64)) AS first,
            SUM(CAST(CONCAT('0x', SUBSTR(hash, 9, 8)) AS INT64)) AS second
        FROM (
            SELECT _PARTITIONDATE AS day, CONCAT(channel, ' ', version) AS name, TO_HEX(MD5(CONCAT({written}))) AS hash
            FROM `{table}` WHERE {_IN_RANGE}
        ) GROUP BY day, name
    """


def check_table(table: bigquery.Table) -> None:
    """Raise UserError for a table that has other columns or partitions, or that would lose what is loaded into it."""
    remedy = "move it away or name another dataset"
    columns = [(field.name, field.field_type, field.mode) for field in table.schema]
    if columns != [column[:3] for column in COLUMNS]:
        raise UserError(f"table {table.full_table_id} has other columns: {remedy}")
    partitioning = table.time_partitioning
    if partitioning is None or (partitioning.type_, partitioning.field) != ("DAY", None):
        raise UserError(f"table {table.full_table_id} is not partitioned by ingestion day: {remedy}")
    if partitioning.expiration_ms or table.expires:
        raise UserError(
            f"table {table.full_table_id} or its partitions expire, so old days would be gone once loaded: take"
            " the expiration off the table, and off its dataset, from which new tables get theirs"
        )


def open_warehouse(settings: BigQuerySettings) -> Warehouse:
    """The dataset, with Google's default credentials. Raises UserError where there are none."""
    try:
        with bigquery_errors("credentials"):
            return Warehouse(bigquery.Client(settings.project, location=settings.location), settings.dataset)
    except (ValueError, AttributeError) as error:
        # The latter for JSON that is no object.
        reason = brief(str(error))
        raise UserError(f"BigQuery, credentials: {reason}; check GOOGLE_APPLICATION_CREDENTIALS") from error
