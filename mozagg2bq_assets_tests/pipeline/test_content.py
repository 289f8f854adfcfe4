"""Content sums: what `verify --content` finds, where row counts agree."""

from datetime import date
from pathlib import Path

import duckdb
import pytest

from mozagg2bq_assets.lake.manifest import ParquetManifest
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.pipeline.content import ContentCheck
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets.pipeline.report import reports
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.cli import run
from mozagg2bq_assets_tests.helpers.rows import Row, fill
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

ONE_DAY = DayRange(DAYS.start, DAYS.start.replace(day=2))
TABLE = "build_id_nightly_73_20191201"
OTHER_TABLES = ("build_id_nightly_73_20191201103045", "build_id_beta_72_20191201")

ROWS = [
    Row('{"os": "Linux", "label": "digit", "application": "Firefox"}', "{1,2,3}"),
    Row('{"os": "Linux", "label": "", "application": "Firefox"}', "{1,2,3}"),
    Row('{"os": "Linux", "label": "swapped", "application": "Firefox"}', "{1,2,3}"),
    Row('{"label": "one"}', "{}"),
    Row('{"label": "other"}', "{}"),
    Row('{"label": "tab\\t line\\n quote\\" back\\\\slash \\\\N \\u0001 ä 😀", "metric": "1:a"}', "{NULL,1}"),
    Row('{"child": true, "os": 1.10, "osVersion": null, "application": {"a": [1, "]"]}, "unknown": 1}', "[5:6]={1,2}"),
    Row("[1, 2]", "{{1,2},{3,4}}"),
    Row('"text"', "{9223372036854775807,-9223372036854775808}"),
    Row(None, "{0}"),
    Row("{}", None),
    Row(None, None),
    Row(None, None),
]

# What is done to rows, with SQL that BigQuery and DuckDB understand, and in PostgreSQL.
TAMPERING = {
    "one digit": (
        "UPDATE {} SET aggregate = '[1,2,4]' WHERE label = 'digit'",
        "UPDATE {} SET histogram = '{{1,2,4}}' WHERE dimensions->>'label' = 'digit'",
    ),
    "two values swapped": (
        "UPDATE {} SET os = application, application = os WHERE label = 'swapped'",
        'UPDATE {} SET dimensions = dimensions || \'{{"os": "Firefox", "application": "Linux"}}\''
        " WHERE dimensions->>'label' = 'swapped'",
    ),
    "a row twice and another missing": (
        "UPDATE {} SET label = 'one' WHERE label = 'other'",
        "UPDATE {} SET dimensions = '{{\"label\": \"one\"}}' WHERE dimensions->>'label' = 'other'",
    ),
    "NULL for an empty string": (
        "UPDATE {} SET label = NULL WHERE label = ''",
        "UPDATE {} SET dimensions = dimensions - 'label' WHERE dimensions->>'label' = ''",
    ),
}


@pytest.fixture
def odd_rows(empty_pipeline: Pipeline) -> Pipeline:
    """Rows of every kind in three tables of two channels, ingested."""
    for table in (TABLE, *OTHER_TABLES):
        fill(empty_pipeline.source, table, ROWS)
    assert empty_pipeline.run(ONE_DAY).success
    return empty_pipeline


def differences() -> list[str]:
    """What is found."""
    (report,) = reports([TYPE], ONE_DAY, count_source=True, announce=lambda _: None)
    return [line.split(" (")[0] for line in report.differences]


def line(place: str) -> str:
    """What is said of the channel that was tampered with, by the first of the places compared."""
    return f"build_id 20191201: rows of nightly 73 are not the same in {place}"


@pytest.mark.parametrize("kind", TAMPERING)
def test_found_in_every_place(odd_rows: Pipeline, tmp_path: Path, kind: str) -> None:
    """In BigQuery, in the Parquet file, in PostgreSQL, each by itself; and undone, nothing."""
    ours, postgres = TAMPERING[kind]
    assert differences() == []

    query = ours.format(f"`{odd_rows.warehouse.table_id(TYPE)}`") + " AND channel = 'nightly'"
    odd_rows.warehouse.client.query(query).result()
    assert differences() == [line("Parquet file")]
    assert odd_rows.run(ONE_DAY, backfill="again").success
    assert differences() == []

    before = odd_rows.manifest(ParquetManifest)
    store_tampered(odd_rows, before, ours.format("rows") + " AND channel = 'nightly'", tmp_path)
    assert differences() == [line("source"), line("Parquet file")]
    assert odd_rows.run(ONE_DAY, backfill="and again").success
    assert differences() == []

    odd_rows.source.execute(postgres.format(TABLE).encode())
    assert odd_rows.reconcile(ONE_DAY).differences == []
    assert differences() == [line("source")]


def store_tampered(pipeline: Pipeline, manifest: ParquetManifest, statement: str, folder: Path) -> None:
    """Put a Parquet file with other rows, and a manifest that agrees with it, in the place of a version."""
    (path,) = pipeline.lake.fetch(manifest, folder)
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE rows AS FROM read_parquet($path)", {"path": str(path)})
        connection.execute(statement)
        connection.execute("COPY rows TO $path (FORMAT parquet)", {"path": str(path)})
    pipeline.lake.upload([path], pipeline.lake.key(manifest.of, manifest.partition.path, manifest.version))
    pipeline.lake.publish(manifest.model_copy(update={"files": (describe(path),)}))


def test_what_was_trimmed(odd_rows: Pipeline) -> None:
    """Tables that are gone from the source, in part or all, are not compared with what the lake has of them."""
    odd_rows.source.execute(f"DROP TABLE {OTHER_TABLES[0]}".encode())
    assert differences() == []
    odd_rows.source.execute(f"DROP TABLE {OTHER_TABLES[1]}".encode())
    assert differences() == []


def test_the_command(odd_rows: Pipeline) -> None:
    """It says first what BigQuery will read (the emulator's dry run says 0), and exits 1 where rows differ."""
    command = ("verify", "--content", "--aggregate-type", "build_id", "--date", str(DAYS.start))
    verified = run(*command)
    assert (verified.returncode, "DIFFERS" in verified.stdout) == (0, False)
    assert verified.stderr == f"BigQuery reads 0 bytes of {odd_rows.warehouse.table_id(TYPE)} for the content sums\n"
    odd_rows.source.execute(f"UPDATE {TABLE} SET histogram = '{{7}}' WHERE histogram IS NULL".encode())
    verified = run(*command)
    assert verified.returncode == 1
    assert f"DIFFERS: {DAYS.start}: rows of nightly 73 are not the same in source" in verified.stdout


@pytest.mark.parametrize("with_content", [False, True])
def test_locks_do_not_pile_up(pipeline: Pipeline, tmp_path: Path, with_content: bool) -> None:
    """Whoever compares years would hold more locks than a server has room for; each table's goes when it is counted."""
    assert not [result for result in pipeline.ingest(tmp_path) if result.error]
    lake, warehouse, held = pipeline.lake, pipeline.warehouse, list[int]()
    held_locks = "SELECT count(*) FROM pg_locks WHERE pid = %s AND relation::regclass::text LIKE 'build_id%%'"

    with open_source(read_postgres()).connect() as connection:

        def compared(_: date) -> None:
            (count,) = pipeline.source.execute(held_locks, [connection.info.backend_pid]).fetchone() or (-1,)
            held.append(count)

        content = ContentCheck(connection, lake, warehouse.content_sums(TYPE, DAYS), tmp_path)
        report = reconcile(connection, lake, warehouse, TYPE, DAYS, True, content if with_content else None, compared)
    assert [day.source_rows for day in report.days] == [250] * 3
    assert held == [0, 0, 0]
