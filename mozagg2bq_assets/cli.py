"""The command `mozagg2bq`: the pipeline's functions by hand. Modules are imported by the command that needs them."""

import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

import click

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.local.commands import local
from mozagg2bq_assets.schema import AggregateType, ds_nodash, parse_day

if TYPE_CHECKING:
    from mozagg2bq_assets.backfill import Progress
    from mozagg2bq_assets.pgdump.archive import DayArchive
    from mozagg2bq_assets.transform.kernel import ParquetFile

Command = TypeVar("Command", bound=Callable[..., None])


class AggregateTypeOption(click.ParamType[AggregateType]):
    """An aggregate type on the command line."""

    name = "type"

    def convert(self, value: str | AggregateType, *_: object) -> AggregateType:
        """Raises UserError."""
        return AggregateType.parse(value)


class DayOption(click.ParamType[date]):
    """A day on the command line."""

    name = "date"

    def convert(self, value: str | date, *_: object) -> date:
        """Raises UserError."""
        return value if isinstance(value, date) else parse_day(value)


def type_option(required: bool) -> Callable[[Command], Command]:
    """`--aggregate-type`."""
    text = "submission_date or build_id." + ("" if required else " Both, if it is left out.")
    return click.option("--aggregate-type", type=AggregateTypeOption(), required=required, help=text)


def date_option(required: bool) -> Callable[[Command], Command]:
    """`--date`."""
    text = "The day, as 2019-12-01 or 20191201." + ("" if required else " All days, if it is left out.")
    return click.option("--date", "day", type=DayOption(), required=required, help=text)


end_date_option = click.option("--end-date", type=DayOption(), help="The day after the last day; by default one day.")
input_dir_option = click.option(
    "--input-dir", type=click.Path(path_type=Path), required=True, help="The folder to read from."
)
output_dir_option = click.option(
    "--output-dir", type=click.Path(path_type=Path), required=True, help="The folder to write to; made if missing."
)


@click.group(epilog="--debug, anywhere, shows the traceback of an error.")
def cli() -> None:
    """Move Firefox Telemetry's daily histogram aggregates from PostgreSQL to BigQuery."""


cli.add_command(local)


@cli.command()
@type_option(required=False)
@date_option(required=False)
def tables(aggregate_type: AggregateType | None, day: date | None) -> None:
    """List the source's aggregate tables, one a line."""
    from mozagg2bq_assets import environment
    from mozagg2bq_assets.pgdump.source import list_tables

    with environment.postgres().connect() as connection:
        for each in _types(aggregate_type):
            for table in list_tables(connection, each, [day] if day else []):
                click.echo(table.name)


@cli.command()
def psql() -> None:
    """Open an interactive session on the source."""
    from mozagg2bq_assets import environment

    try:
        os.execvpe("psql", ["psql"], {**os.environ, **environment.postgres().environment()})  # noqa: S606
    except FileNotFoundError:
        raise UserError("psql is not on PATH: install PostgreSQL's client tools") from None


@cli.command()
@type_option(required=True)
@date_option(required=True)
@end_date_option
@output_dir_option
def dump(aggregate_type: AggregateType, day: date, end_date: date | None, output_dir: Path) -> None:
    """Dump the tables of some days into OUTPUT_DIR/TYPE/YYYYMMDD, a pg_dump archive for each day."""
    from mozagg2bq_assets import environment
    from mozagg2bq_assets.pgdump.dump import checked, dump_days

    days = list(_days(day, end_date))
    _check_partitions(days)
    folder = output_dir / aggregate_type
    if existing := [folder / ds_nodash(day) for day in days if (folder / ds_nodash(day)).exists()]:
        raise UserError(f"{existing[0]} exists already: remove it, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    with TemporaryDirectory(dir=folder, prefix=".dump-") as work:
        dumps = dump_days(environment.postgres(), aggregate_type, days, Path(work))
        for day, dumped in dumps.items():
            try:
                dump = checked(dumped)
            except (UserError, DataError) as error:
                failures.append(f"{ds_nodash(day)}: {error}")
                continue
            dump.archive.directory.rename(folder / ds_nodash(day))
            click.echo(f"{folder / ds_nodash(day)}: {len(dump.rows)} tables, {sum(dump.rows.values()):,} rows")
    for day in sorted(set(days) - dumps.keys()):
        click.echo(f"{aggregate_type} {ds_nodash(day)}: the source has no tables of this day", err=True)
    if failures:
        raise DataError(f"{len(failures)} of {len(days)} days were not dumped: {'; '.join(failures)}")
    if not dumps:
        raise UserError("nothing was dumped: `mozagg2bq tables` lists what the source has")


@cli.command("to-parquet")
@input_dir_option
@output_dir_option
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    help="What does the work; by default what TRANSFORM_ENGINE says.",
)
def to_parquet(input_dir: Path, output_dir: Path, engine: str | None) -> None:
    """Turn the archive in INPUT_DIR, whose path ends in TYPE/YYYYMMDD, into one Parquet file in OUTPUT_DIR."""
    from mozagg2bq_assets import environment
    from mozagg2bq_assets.pgdump.archive import open_day
    from mozagg2bq_assets.transform.kernel import PARQUET_FILE

    if not input_dir.is_dir():
        raise UserError(f"{input_dir}: no such folder")
    aggregate_type, day = _type_and_day(input_dir)
    archive = open_day(input_dir, aggregate_type, day)
    output_dir.mkdir(parents=True, exist_ok=True)
    written = write_with(environment.engine(engine), archive, output_dir / f".{PARQUET_FILE}")
    target = written.path.rename(output_dir / PARQUET_FILE)
    if warning := written.unmapped.warning():
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{target}: {sum(written.rows.values()):,} rows")


@cli.command()
@type_option(required=True)
@date_option(required=True)
@input_dir_option
def load(aggregate_type: AggregateType, day: date, input_dir: Path) -> None:
    """Replace one partition of the BigQuery table by the Parquet file in INPUT_DIR."""
    from mozagg2bq_assets import environment
    from mozagg2bq_assets.stages import load_partition
    from mozagg2bq_assets.transform.kernel import PARQUET_FILE, check_day

    _check_partitions([day])
    parquet = input_dir / PARQUET_FILE
    if not parquet.is_file():
        raise UserError(f"{parquet}: no such file; `mozagg2bq to-parquet` makes it")
    rows = check_day(parquet, aggregate_type, day)
    partition = load_partition(environment.warehouse(), aggregate_type, day, parquet, f"mozagg2bq-{uuid4()}", rows)
    click.echo(f"{partition}: {sum(rows.values()):,} rows")


@cli.command()
@type_option(required=False)
@date_option(required=False)
@end_date_option
def verify(aggregate_type: AggregateType | None, day: date | None, end_date: date | None) -> None:
    """Compare source, lake and BigQuery, day by day; with --date the source's rows too, not its tables alone."""
    from mozagg2bq_assets import environment
    from mozagg2bq_assets.reconcile import Range
    from mozagg2bq_assets.report import print_reports, reports

    if day:
        wanted = Range(day, _end(day, end_date), counted=True)
        _check_partitions((wanted.start, wanted.end - timedelta(days=1)))
    elif end_date:
        raise UserError("--end-date goes with --date")
    else:
        wanted = Range(environment.partitions_start(), datetime.now(UTC).date())
    if not print_reports(reports(_types(aggregate_type), wanted)):
        sys.exit(1)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Print schema and first rows of a Parquet file, or of those in a folder."""
    import duckdb
    import pyarrow.parquet
    from pyarrow import ArrowException

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not path.exists():
        raise UserError(f"{path}: no Parquet file here")
    try:
        for field in pyarrow.parquet.read_schema(files[0]):
            click.echo(f"{field.name}: {field.type}{'' if field.nullable else ' REQUIRED'}")
        with duckdb.connect() as connection:
            rows = connection.sql("SELECT * FROM read_parquet($files)", params={"files": [str(file) for file in files]})
            rows.limit(10).show(max_width=200)
    except (ArrowException, duckdb.Error) as error:
        raise DataError(f"{path}: unreadable Parquet: {str(error).splitlines()[0]}") from error


@cli.command()
@click.option("--start", type=DayOption(), help="The first day.")
@click.option("--end", type=DayOption(), help="The day after the last day.")
@type_option(required=False)
@click.option("--cancel", metavar="ID", help="End that backfill instead; what it has committed stays.")
@click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Where Dagster's webserver is.")
def backfill(start: date | None, end: date | None, aggregate_type: AggregateType | None, cancel: str, url: str) -> None:
    """Launch a backfill of all stages on the running Dagster and follow it to its end."""
    from mozagg2bq_assets.backfill import Dagster

    dagster = Dagster(url.rstrip("/"))
    if cancel:
        dagster.cancel(cancel)
        click.echo(f"backfill {cancel} is being canceled")
        return
    if start is None or end is None:
        raise UserError("--start and --end are needed, or --cancel with a backfill's id")
    days = list(_days(start, _end(start, end, "--start", "--end")))
    _check_partitions(days)
    backfill_id = dagster.launch(_types(aggregate_type), days)
    page = f"{dagster.url}/runs/b/{backfill_id}"
    try:
        click.echo(f"backfill {backfill_id}: {page}")
        last = _show_progress(dagster.follow(backfill_id), len(days) * len(_types(aggregate_type)))
    except KeyboardInterrupt:
        raise UserError(
            f"no longer followed, but it goes on: look at {page}, or end it with"
            f" `mozagg2bq backfill --cancel {backfill_id}`"
        ) from None
    summary = f"{last.done} of {last.targeted} partitions done, {last.failed} failed, {last.rows:,} rows"
    if not last.succeeded:
        raise DataError(f"backfill {backfill_id} {last.status}: {summary}: {last.error or page}")
    click.echo(summary)


def _show_progress(states: "Iterator[Progress]", partitions: int) -> "Progress":
    """A bar on a terminal; returns the last state."""
    started = monotonic()
    with click.progressbar(length=partitions, label="partitions", item_show_func=lambda text: text or "") as bar:
        for state in states:
            rate = state.rows / max(monotonic() - started, 1)
            text = f"{state.done} done, {state.failed} failed, {state.rows:,} rows, {rate:,.0f} rows/s"
            bar.update(state.done + state.failed - bar.pos, text)
    return state


def write_with(engine: str, archive: "DayArchive", output: Path) -> "ParquetFile":
    """Turn an archive into Parquet with an engine."""
    from mozagg2bq_assets.transform.kernel import write_parquet

    if engine == "duckdb":
        return write_parquet(archive, archive.created, output)

    from mozagg2bq_assets.transform.spark import session
    from mozagg2bq_assets.transform.storage import convert_archive

    return convert_archive(session(), archive, output)


def _types(chosen: AggregateType | None) -> Sequence[AggregateType]:
    return [chosen] if chosen else list(AggregateType)


def _end(start: date, end: date | None, start_option: str = "--date", end_option: str = "--end-date") -> date:
    if end is None:
        return start + timedelta(days=1)
    if end <= start:
        raise UserError(f"{end_option} {end} is not after {start_option} {start}; the end is exclusive")
    return end


def _days(start: date, end: date | None) -> Iterator[date]:
    return (start + timedelta(days=n) for n in range((_end(start, end) - start).days))


def _check_partitions(days: Iterable[date]) -> None:
    from mozagg2bq_assets.environment import partitions_start

    for day in days:
        if not partitions_start() <= day < datetime.now(UTC).date():
            raise UserError(
                f"{day} is outside the partitions, which begin at {partitions_start()} and end with yesterday (UTC);"
                " PARTITIONS_START sets their begin"
            )


def _type_and_day(folder: Path) -> tuple[AggregateType, date]:
    day, aggregate_type = folder.resolve().name, folder.resolve().parent.name
    try:
        return AggregateType.parse(aggregate_type), parse_day(day)
    except UserError as error:
        raise UserError(f"{folder}: {error}; the path has to end in TYPE/YYYYMMDD") from None


def main() -> None:
    """The command's entry: errors as one line, exit 1; with --debug as they are."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        cli.main([argument for argument in arguments if argument != "--debug"], prog_name="mozagg2bq")
    except (UserError, DataError) as error:
        if debug:
            traceback.print_exc()
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
