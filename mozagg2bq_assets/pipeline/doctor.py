"""Try what each credential must be able to do, as the pipeline does it, and remove what was made for that.

If the dataset did not exist, it is made and not removed. Aborting an upload in parts is not tried.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow
import pyarrow.parquet
from psycopg import sql

from mozagg2bq_assets.errors import DataError, OperatorError, TransientError, UserError
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.columns import COLUMNS
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper
from mozagg2bq_assets.postgres.tables import count_table, list_names
from mozagg2bq_assets.postgres.updates import fingerprints, has_update_dates
from mozagg2bq_assets.scratch import scratch_folder

if TYPE_CHECKING:
    from mozagg2bq_assets.bigquery.warehouse import Warehouse

BUILD_ID = AggregateType.BUILD_ID
PROBE_DAY = date(2000, 1, 1)
READ = (
    "GRANT USAGE ON SCHEMA public; and pg_read_all_data, or GRANT SELECT ON ALL TABLES IN SCHEMA public together with"
    " ALTER DEFAULT PRIVILEGES for tables that come later"
)
_UNREADABLE = """
    SELECT count(*), min(relname) FROM pg_catalog.pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname = ANY(%s)
        AND NOT has_table_privilege(oid, 'SELECT')
"""


@dataclass(frozen=True)
class Finding:
    """What was tried, and what is wrong with it, with what to grant; None where it works."""

    tried: str
    problem: str | None = None


# A step's name, the permission that it needs, and the step itself.
Step = tuple[str, str, Callable[[], object]]


def examine_source(source: Postgres) -> Iterator[Finding]:
    """Connect, list, ask whether all tables can be read, count and lock one of the latest day, read the record of
    updates, and dump that day.
    """
    with scratch_folder() as folder:
        found: list[SourceTable] = []

        def list_tables() -> None:
            with source.connect() as connection:
                names = [name for each in AggregateType for name in list_names(connection, each)]
                tables = filter(None, map(SourceTable.parse, names))
                found.extend(sorted(tables, key=lambda table: table.day))

        def read() -> None:
            with source.connect() as connection:
                count, first = connection.execute(_UNREADABLE, [[table.name for table in found]]).fetchone() or (0, "")
                if count:
                    raise UserError(f"{count} tables cannot be read, {first} among them")
                count_table(connection, _table(found).name)
                connection.execute(
                    sql.SQL("LOCK TABLE ONLY public.{} IN ACCESS SHARE MODE").format(sql.Identifier(_table(found).name))
                )

        def updates() -> None:
            with source.connect() as connection:
                # Without that table late data are found by names and counts, which nobody has to grant.
                if has_update_dates(connection):
                    fingerprints(connection, _table(found).aggregate_type)

        def dump() -> None:
            ((_, dumped),) = Dumper(source, folder).dump([Partition.of(_table(found))])
            if isinstance(dumped, OperatorError):
                raise dumped

        yield from _examined(
            (
                "PostgreSQL: connect, list tables",
                "GRANT CONNECT ON DATABASE …",
                list_tables,
            ),
            ("PostgreSQL: count and lock a table", READ, read),
            ("PostgreSQL: read table_update_dates", "GRANT SELECT ON table_update_dates", updates),
            ("PostgreSQL: snapshot, and pg_dump of a day", READ, dump),
        )


def examine_lake(lake: Lake) -> Generator[Finding, None, None]:
    """Put, list, get and delete an object below the lake's prefix, and list incomplete uploads."""
    with scratch_folder() as folder:
        path = folder / "probe"
        path.write_bytes(b"mozagg2bq doctor")
        place = "/".join(filter(None, (lake.prefix, "doctor", uuid4().hex)))

        def is_listed() -> None:
            if f"{place}/probe" not in {found.key for found in lake.list(place)}:
                raise DataError("an object that was stored is not listed: the store is not consistent")

        def fetch() -> None:
            (folder / "back").mkdir()
            lake.download(f"{place}/probe", folder / "back", describe(path))

        def delete() -> None:
            lake.delete([f"{place}/probe"])

        with _cleaned_up(delete):
            yield from _examined(
                ("S3: store an object", "s3:PutObject", lambda: lake.upload([path], place)),
                ("S3: list objects", "s3:ListBucket", is_listed),
                ("S3: read an object", "s3:GetObject", fetch),
                ("S3: list incomplete uploads", "s3:ListBucketMultipartUploads", lambda: list(lake.uploads(place))),
                ("S3: delete an object", "s3:DeleteObject, s3:AbortMultipartUpload", delete),
            )


def examine_warehouse(warehouse: "Warehouse") -> Iterator[Finding]:
    """Make a table of its own in the dataset, load one row into a partition, count it, and drop the table."""
    with scratch_folder() as folder:
        path, probe = folder / "probe.parquet", warehouse.probe()
        partition = Partition(BUILD_ID, PROBE_DAY)
        _write_row(path, partition)

        def count() -> None:
            if probe.count_partition(partition).total != 1:
                raise DataError("a row that was loaded is not there")

        def drop() -> None:
            probe.drop_table(BUILD_ID)

        editor, user = "roles/bigquery.dataEditor on the dataset", "roles/bigquery.jobUser on the project"
        with _cleaned_up(drop):
            yield from _examined(
                ("BigQuery: make a table", editor, lambda: probe.ensure_table(BUILD_ID)),
                (
                    "BigQuery: load a row",
                    user,
                    lambda: probe.load(partition, path, f"mozagg2bq-doctor-{uuid4()}"),
                ),
                ("BigQuery: query it", f"{user}, dataEditor on the dataset", count),
                ("BigQuery: drop the table", editor, drop),
            )


@contextmanager
def _cleaned_up(step: Callable[[], object]) -> Iterator[None]:
    """Take the last step also where the command is ended before it, or nobody reads on."""
    try:
        yield
    except BaseException:
        with suppress(OperatorError):
            step()
        raise


def _examined(*steps: Step) -> Iterator[Finding]:
    """Try the steps of a service. If the first finds it away, none else is tried: each would wait for it."""
    for n, (tried, grant, step) in enumerate(steps):
        try:
            step()
        except TransientError as error:
            yield Finding(tried, str(error))
            if n == 0:
                return
        except OperatorError as error:
            yield Finding(tried, f"{error} (the step needs: {grant})")
        else:
            yield Finding(tried)


def _table(found: list[SourceTable]) -> SourceTable:
    """The latest."""
    if not found:
        raise UserError("the source shows no aggregate table to try it with")
    return found[-1]


def _write_row(path: Path, partition: Partition) -> None:
    """A Parquet file of one row, as the pipeline writes them."""
    values = {"ingest_date": datetime.now(UTC).date(), "aggregate_type": partition.aggregate_type.value}
    values |= {"ds_nodash": partition.ds_nodash, "channel": "doctor", "version": "0"}
    fields = [
        pyarrow.field(
            column.name,
            pyarrow.date32() if column.bigquery_type == "DATE" else pyarrow.string(),
            nullable=column.mode == "NULLABLE",
        )
        for column in COLUMNS
    ]
    row = [{column.name: values.get(column.name) for column in COLUMNS}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(row, pyarrow.schema(fields)), path)
