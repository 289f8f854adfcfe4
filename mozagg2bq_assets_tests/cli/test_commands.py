"""The command, run as a user runs it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.cli.main import main
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.partitions import Partition, parse_day
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets_tests.helpers.archives import archive_folder
from mozagg2bq_assets_tests.helpers.cli import COMMAND, run
from mozagg2bq_assets_tests.helpers.wait import wait_for

DAY = "2019-12-01"


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
    days = ("--start", DAY, "--end", "20191204")
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
    assert f"DIFFERS: {DAY}: 250 rows in BigQuery, 0 in the Parquet file: materialize build_id/" in verified.stdout
    assert verified.stdout.endswith("\nbuild_id: 1 of 1 days differ\n")
    again = run("dump", "--aggregate-type", "build_id", "--date", DAY, "--output-dir", tmp_path)
    assert "exists already" in again.stderr
    other_day = run("load", "--aggregate-type", "build_id", "--date", "20191202", "--input-dir", out)
    assert "does not hold rows of build_id 20191202 only" in other_day.stderr


@pytest.mark.usefixtures("_days")
def test_json(tmp_path: Path) -> None:
    """Each command's result as one JSON value, and nothing beside it on stdout."""

    def ask(*command: str | Path) -> Any:
        return json.loads(run(*command, "--json").stdout)

    day = ("--aggregate-type", "build_id", "--date", DAY)
    assert len(ask("tables", *day)) == 6
    (dumped,) = ask("dump", *day, "--output-dir", tmp_path)
    assert dumped == {
        "aggregate_type": "build_id",
        "day": DAY,
        "path": str(tmp_path / "build_id" / "20191201"),
        "tables": 6,
        "rows": 250,
    }
    converted = ask("to-parquet", "--input-dir", dumped["path"], "--output-dir", tmp_path / "out")
    assert (converted["rows"], converted["unmapped_keys"]) == (250, {})
    shown = ask("show", tmp_path / "out")
    assert shown["schema"][0] == {"name": "ingest_date", "type": "date32[day]", "nullable": False}
    assert len(shown["rows"]) == 10
    assert ask("load", *day, "--input-dir", tmp_path / "out")["rows"] == 250
    (report,) = ask("verify", *day)
    assert [difference["stage"] for difference in report["days"][0]["differences"]] == ["raw_dump", "bigquery_table"]
    assert ask("lake", "list", *day) == []
    assert ask("lake", "verify", *day) == {"files": 0, "damaged": []}
    assert ask("lake", "clean") == []
    assert {finding["problem"] for finding in ask("doctor")} == {None}


DUMP = ("dump", "--aggregate-type", "build_id", "--output-dir", "{tmp}/new")
LOAD = ("load", "--aggregate-type", "build_id", "--date", DAY, "--input-dir", "{tmp}")
LOADED = ("verify", "--date", DAY)
CONVERT = ("to-parquet", "--output-dir", "{tmp}", "--input-dir")
SEED = ("local", "seed", "--scale")

# Arguments, variables, and what the message says.
ERRORS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "no server": (("tables",), {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"}, "cannot connect to PostgreSQL"),
    "wrong password": (("tables",), {"POSTGRES_PASS": "wrong"}, "password authentication failed"),
    "no such bucket": (("verify", "--date", DAY), {"LAKE_URI": "s3://nowhere/x"}, "NoSuchBucket"),
    "unknown profile": (("verify", "--date", DAY), {"AWS_PROFILE": "nobody"}, "check the variables AWS_*"),
    "no endpoint": (("verify", "--date", DAY), {"AWS_ENDPOINT_URL": "nowhere"}, "Invalid endpoint: nowhere; check"),
    "no BigQuery": (LOADED, {"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"}, "refused, at 127.0.0.1:1: check BIGQ"),
    "no URL": (LOADED, {"BIGQUERY_EMULATOR_HOST": "127.0.0.1:1"}, "; check BIGQUERY_EMULATOR_HOST"),
    "no Dagster": (("backfill", "--cancel", "x", "--url", "http://127.0.0.1:1"), {}, "no Dagster answers at http://127"),
    "no S3 URI": (("verify", "--date", DAY), {"LAKE_URI": "lake/x"}, "not an S3 URI"),
    "not set": (("verify", "--date", DAY), {"BIGQUERY_PROJECT": ""}, "BIGQUERY_PROJECT is not set"),
    "outside the partitions": ((*DUMP, "--date", "2013-02-01"), {}, "outside the partitions, which begin at 2015"),
    "no tables": ((*DUMP, "--date", "2019-11-30"), {}, "nothing was dumped"),
    "unreadable archive": ((*CONVERT, "{tmp}/build_id/20191201"), {}, "toc.dat: unreadable archive"),
    "path without type": ((*CONVERT, "{tmp}"), {}, "TYPE/YYYYMMDD"),
    "nothing to load": (LOAD, {}, "no such file"),
    "nothing to show": (("show", "{tmp}"), {}, "no Parquet file here"),
    "file in the way": ((*DUMP[:-1], "{tmp}/file/new", "--date", DAY), {}, "Not a directory: '{tmp}/file/new/"),
}  # fmt: skip

# Arguments, variables, and what the message says.
USAGE_ERRORS: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "unknown type": (("tables", "--aggregate-type", "main"), {}, "unknown aggregate type 'main': use submission_date"),
    "no type": (("tables", "--aggregate-type", ""), {}, "unknown aggregate type ''"),
    "no date": ((*DUMP, "--date", "2019-13-01"), {}, "'--date': not a date: '2019-13-01'; write it as 2019-12-01 or"),
    "empty date": (("verify", "--start", ""), {}, "'--start': not a date: ''"),
    "two lines": (("verify", "--date", "2019\n"), {}, r"not a date: '2019\n'"),
    "last of all days": (("tables", "--date", "9999-12-31"), {}, "'--date': 9999-12-31 is too late: no day follows it"),
    "end of all days": (("tables", "--start", DAY, "--end", "99991231"), {}, "'--end': 9999-12-31 is too late"),
    "end is start": ((*DUMP, "--start", DAY, "--end", DAY), {}, f"'--end': {DAY} is not after {DAY}; the end is"),
    "old end is start": ((*DUMP, "--date", DAY, "--end-date", DAY), {}, "is not after"),
    "no day": (DUMP, {}, "Missing option '--date', or '--start' and '--end'"),
    "start alone": (("verify", "--start", DAY), {}, "--start and --end go together"),
    "end alone": (("tables", "--end", DAY), {}, "--start and --end go together"),
    "old end alone": (("verify", "--end-date", DAY), {}, "--start and --end go together"),
    "day and range": ((*DUMP, "--date", DAY, "--start", DAY, "--end", "20191203"), {}, "--date is for one day"),
    "day and end": ((*DUMP, "--date", DAY, "--end", "20191203"), {}, "--date is for one day"),
    "no folder": ((*CONVERT, "{tmp}/nothing"), {}, "Directory '{tmp}/nothing' does not exist"),
    "empty path": ((*DUMP[:-1], "", "--date", DAY), {}, "'--output-dir': an empty path"),
    "path that is not text": ((*DUMP[:-1], os.fsdecode(b"{tmp}/\xff"), "--date", DAY), {}, r"\udcff' is not UTF-8"),
    "file for a folder": ((*DUMP[:-1], "{tmp}/file", "--date", DAY), {}, "Directory '{tmp}/file' is a file"),
    "nothing to show": (("show", "{tmp}/nothing"), {}, "Path '{tmp}/nothing' does not exist"),
    "unknown engine": ((*CONVERT, "{tmp}"), {"TRANSFORM_ENGINE": "flink"}, "'TRANSFORM_ENGINE'): 'flink' is not one"),
    "no number": ((*SEED, "nan"), {}, "'--scale': nan is not a number"),
    "infinite": ((*SEED, "inf"), {}, "inf is not in the range 0<x<=1"),
    "nothing to do": (("backfill",), {}, "Give --date, or --start and --end, or --follow,"),
    "both": (("backfill", "--date", DAY, "--cancel", "x"), {}, "Give --date, or --start and --end, or --follow,"),
    "unknown option": (("tables", "--dates", DAY), {}, "No such option '--dates'"),
    "unknown command": (("table",), {}, "No such command 'table'"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file, and a folder with an archive that is damaged."""
    (tmp_path / "build_id" / "20191201").mkdir(parents=True)
    (tmp_path / "build_id" / "20191201" / "toc.dat").write_bytes(b"PGDMP, but no more")
    (tmp_path / "file").touch()
    return tmp_path


@pytest.mark.usefixtures("lake", "warehouse")
@pytest.mark.parametrize(("arguments", "environment", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(folder: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    """Exit status 1 and one line on stderr, without a password; nothing is written."""
    result = run(*(argument.replace("{tmp}", str(folder)) for argument in arguments), **environment)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.returncode == 1
    assert message.replace("{tmp}", str(folder)) in line
    assert "Traceback" not in result.stderr
    assert os.environ["POSTGRES_PASS"] not in result.stdout + result.stderr
    assert not list(folder.rglob("*.parquet"))


@pytest.mark.parametrize(("arguments", "environment", "message"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_usage_errors(folder: Path, arguments: tuple[str, ...], environment: dict[str, str], message: str) -> None:
    """Exit status 2, the usage and one line that says what is wrong; no service is asked for."""
    values = [argument.replace("{tmp}", str(folder)) for argument in arguments]
    result = CliRunner(env=environment).invoke(main, values)
    usage, hint, blank, line = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, blank) == (2, "", "")
    assert usage.startswith("Usage: mozagg2bq ")
    assert hint.startswith("Try 'mozagg2bq ")
    assert line.startswith("Error: ")
    assert message.replace("{tmp}", str(folder)) in line


@pytest.mark.usefixtures("_days")
@pytest.mark.parametrize(
    ("days", "count"),
    [
        (("--date", DAY), 6),
        (("--start", DAY, "--end", "2019-12-03"), 12),
        (("--date", DAY, "--end-date", "2019-12-03"), 12),
        (("--start-date", DAY, "--end-date", "2019-12-03"), 12),
        ((), 12),
    ],
)
def test_days(days: tuple[str, ...], count: int) -> None:
    """One day, a range, and a range as it was written at first; `build` is another name of `build_id`."""
    result = CliRunner().invoke(main, ("tables", "--aggregate-type", "build", *days))
    assert len(result.stdout.splitlines()) == count, result.output


def _commands(group: click.Group) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from _commands(command)


def test_help() -> None:
    """Every command takes --debug and -h, and its help is sentences; old names are not there."""
    commands = list(_commands(main))
    assert len(commands) == 24
    for command in commands:
        options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
        assert "--debug" in [name for option in options for name in option.opts]
        assert all(re.fullmatch(r"[A-Z].*\.", option.help or "") for option in options), command.name
        assert command.get_short_help_str(limit=68).endswith("."), command.name
        assert not command.get_short_help_str(limit=68).endswith("..."), command.name
    result = CliRunner().invoke(main, ("dump", "-h"))
    assert (result.exit_code, "--end-date" in result.stdout, "--end " in result.stdout) == (0, False, True)


def test_version() -> None:
    """The package's own."""
    assert CliRunner().invoke(main, ("--version",)).stdout == f"mozagg2bq, version {version('mozagg2bq')}\n"


@pytest.mark.parametrize(
    "arguments", [("--debug", "show", "{tmp}"), ("show", "{tmp}", "--debug"), ("show", "--debug", "{tmp}")]
)
def test_debug(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Shows where an error comes from, wherever it is on the line."""
    result = run(*(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith(f"UserError: {tmp_path}: no Parquet file here\n")


@pytest.mark.usefixtures("_days")
def test_closed_pipe() -> None:
    """A reader that goes away ends the command quietly."""
    with subprocess.Popen((COMMAND, "tables"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.usefixtures("_days")
def test_full_disk() -> None:
    """Is one line, also where it is the output's."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run((COMMAND, "tables"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "Error: [Errno 28] No space left on device\n")


def test_interrupted() -> None:
    """Ctrl-C ends a command that waits for a service without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = (COMMAND, "backfill", "--cancel", "x", "--url", url)
        # A shell's proxy does not stand between.
        environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        environment |= {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            connection, _ = server.accept()
            with connection:  # which stays open, or the command would end by itself
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "\nAborted!\n")


@pytest.mark.usefixtures("_days")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_dump_that_is_ended(administrator: psycopg.Connection, tmp_path: Path, number: signal.Signals) -> None:
    """While pg_dump waits behind somebody who waits for us: nothing is left, neither a folder nor a session."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'telemetry'"
    command = (COMMAND, "dump", "--aggregate-type", "build_id", "--date", DAY, "--output-dir", str(tmp_path / "out"))

    def counts(query: str, count: int) -> bool:
        return administrator.execute(query.encode()).fetchone() == (count,)

    with administrator.transaction(force_rollback=True):
        administrator.execute("LOCK TABLE build_id_nightly_73_20191201 IN ACCESS EXCLUSIVE MODE")
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: counts(waiting, 1), 30)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (1, "Aborted!")
    assert list((tmp_path / "out" / "build_id").iterdir()) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["build_id"]
    wait_for(lambda: counts(sessions, 0), 30)


def test_interrupted_query() -> None:
    """Nor is there one where DuckDB meets Ctrl-C."""
    code = """
import os, signal, threading, duckdb
from mozagg2bq_assets.cli.main import main
@main.command()
def forever():
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
    duckdb.connect(config={"threads": 1}).execute("SELECT max(hash(i) + 1.0) FROM range(1000000000000) AS n (i)")
main(["forever"])
"""
    result = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (1, "Aborted!\n")


def test_nothing_set() -> None:
    """With no variables at all, the message names the first that is missing."""
    environment = {"PATH": os.environ["PATH"]}
    result = subprocess.run((COMMAND, "tables"), capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 1
    assert result.stderr.startswith("Error: POSTGRES_HOST is not set")


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("psutil", "local", ("local", "up")),
        ("thrift", "spark", ("to-parquet", "--engine", "spark", "--input-dir", "{archive}", "--output-dir", "{tmp}")),
    ],
)
def test_without_an_extra(tmp_path: Path, package: str, extra: str, arguments: tuple[str, ...]) -> None:
    """The message names it."""
    code = f"import sys; sys.modules['{package}'] = None; from mozagg2bq_assets.cli.main import main; main()"
    filled = (argument.format(archive=archive_folder("15"), tmp=tmp_path) for argument in arguments)
    result = subprocess.run((sys.executable, "-c", code, *filled), capture_output=True, text=True, check=False)
    message = f"Error: {package} is not installed: it comes with mozagg2bq[{extra}]\n"
    assert (result.returncode, result.stderr) == (1, message)
