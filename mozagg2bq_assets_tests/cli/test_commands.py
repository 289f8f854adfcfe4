"""The command, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition, parse_day
from mozagg2bq_assets.model.tables import AggregateType

COMMAND = str(Path(sys.executable).parent / "mozagg2bq")
DAY = "2019-12-01"


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with some variables changed."""
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture
def _days(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse) -> None:
    """Two sample days in the source; a lake and a dataset of the test's own."""
    sample.create_update_dates(administrator)
    for day in ("2019-12-01", "2019-12-02"):
        for _ in sample.seed_partition(administrator, Partition(AggregateType.BUILD_ID, parse_day(day)), 0.001):
            pass


@pytest.mark.usefixtures("_days")
def test_by_hand(tmp_path: Path) -> None:
    """From the source to BigQuery, a command at a time; verify finds that the lake has nothing."""
    assert len(run("tables", "--aggregate-type", "build_id", "--date", "20191201").stdout.splitlines()) == 6
    days = ("--date", DAY, "--end-date", "20191204")
    dumped = run("dump", "--aggregate-type", "build_id", *days, "--output-dir", tmp_path)
    assert dumped.returncode == 0
    assert "build_id 20191203: the source has no tables of this day" in dumped.stderr
    assert sorted(path.name for path in (tmp_path / "build_id").iterdir()) == ["20191201", "20191202"]
    out = tmp_path / "out"
    converted = run("to-parquet", "--input-dir", tmp_path / "build_id" / "20191201", "--output-dir", out)
    assert converted.stdout.endswith("aggregates.parquet: 250 rows\n")
    loaded = run("load", "--aggregate-type", "build_id", "--date", DAY, "--input-dir", out)
    assert loaded.stdout.endswith("build_id_aggregates$20191201: 250 rows\n")
    assert "ingest_date: date32[day] REQUIRED" in run("show", out).stdout
    verified = run("verify", "--aggregate-type", "build_id", "--date", DAY)
    assert verified.returncode == 1
    assert "DIFFERS: build_id 20191201: 250 rows in BigQuery, 0 in the Parquet file" in verified.stdout
    again = run("dump", "--aggregate-type", "build_id", "--date", DAY, "--output-dir", tmp_path)
    assert "exists already" in again.stderr
    other_day = run("load", "--aggregate-type", "build_id", "--date", "20191202", "--input-dir", out)
    assert "does not hold rows of build_id 20191202 only" in other_day.stderr


DUMP = ("dump", "--aggregate-type", "build_id", "--output-dir", "{tmp}/new", "--date")
LOAD = ("load", "--aggregate-type", "build_id", "--date", DAY, "--input-dir", "{tmp}")
CONVERT = ("to-parquet", "--output-dir", "{tmp}", "--input-dir")

# Arguments, variables, and what the message says.
ERRORS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no server": (("tables",), {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"}, "cannot connect to PostgreSQL"),
    "wrong password": (("tables",), {"POSTGRES_PASS": "wrong"}, "password authentication failed"),
    "no such bucket": (("verify", "--date", DAY), {"LAKE_URI": "s3://nowhere/x"}, "NoSuchBucket"),
    "no S3 URI": (("verify", "--date", DAY), {"LAKE_URI": "lake/x"}, "not an S3 URI"),
    "not set": (("verify", "--date", DAY), {"BIGQUERY_PROJECT": ""}, "BIGQUERY_PROJECT is not set"),
    "unknown type": (("tables", "--aggregate-type", "main"), {}, "unknown aggregate type 'main'"),
    "no date": ((*DUMP, "2019-13-01"), {}, "not a date: '2019-13-01'"),
    "outside the partitions": ((*DUMP, "2013-02-01"), {}, "is outside the partitions, which begin at 2015-06-01"),
    "end before start": ((*DUMP, DAY, "--end-date", DAY), {}, "is not after"),
    "end without start": (("verify", "--end-date", DAY), {}, "--end-date goes with --date"),
    "no tables": ((*DUMP, "2019-11-30"), {}, "nothing was dumped"),
    "unreadable archive": ((*CONVERT, "{tmp}/build_id/20191201"), {}, "toc.dat: unreadable archive"),
    "no folder": ((*CONVERT, "{tmp}/nothing"), {}, "no such folder"),
    "path without type": ((*CONVERT, "{tmp}"), {}, "TYPE/YYYYMMDD"),
    "unknown engine": (
        (*CONVERT, "{tmp}/build_id/20191201"), {"TRANSFORM_ENGINE": "flink"}, "use duckdb or spark (TRANSFORM_ENGINE)",
    ),
    "nothing to load": (LOAD, {}, "no such file"),
    "nothing to show": (("show", "{tmp}/nothing"), {}, "no Parquet file here"),
}  # fmt: skip


@pytest.mark.usefixtures("lake", "warehouse")
@pytest.mark.parametrize(("arguments", "environment", "message"), ERRORS.values(), ids=ERRORS)
def test_bad_input(tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    """Exit status 1 and one line on stderr, without a password; nothing is written."""
    (tmp_path / "build_id" / "20191201").mkdir(parents=True)
    (tmp_path / "build_id" / "20191201" / "toc.dat").write_bytes(b"PGDMP, but no more")
    result = run(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments), **environment)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1
    assert message in line
    assert "Traceback" not in result.stderr
    assert os.environ["POSTGRES_PASS"] not in result.stdout + result.stderr
    assert not list(tmp_path.rglob("*.parquet"))


def test_debug(stack: object) -> None:
    """Shows where an error comes from."""
    assert "Traceback" in run("tables", "--debug", "--aggregate-type", "main").stderr


def test_nothing_set() -> None:
    """With no variables at all, the message names the first that is missing."""
    environment = {"PATH": os.environ["PATH"]}
    result = subprocess.run((COMMAND, "tables"), capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith("error: POSTGRES_HOST is not set")
