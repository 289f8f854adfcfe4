"""`mozagg2bq tables`, `psql`, `dump`: the source's tables, a session, and dumps into folders."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from mozagg2bq_assets.cli.options import days_options, debug_option, output_dir_option, type_option, types
from mozagg2bq_assets.cli.partitions import check_partitions
from mozagg2bq_assets.errors import DataError, OperatorError, UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.dump import Dumper
from mozagg2bq_assets.postgres.tables import list_names
from mozagg2bq_assets.settings import read_postgres


@click.command()
@type_option(required=False)
@days_options(required=False)
@debug_option
def tables(aggregate_type: AggregateType | None, days: DayRange | None) -> None:
    """List the source's aggregate tables, one a line.

    Without days, the tables of all days are listed.
    """
    with open_source(read_postgres()).connect() as connection:
        for each in types(aggregate_type):
            for table in map(SourceTable.parse, list_names(connection, each)):
                if table and (days is None or table.day in days):
                    click.echo(table.name)


@click.command()
@debug_option
def psql() -> None:
    """Open an interactive session on the source."""
    try:
        os.execvpe("psql", ["psql"], dict(open_source(read_postgres()).environment()))  # noqa: S606
    except FileNotFoundError:
        raise UserError("psql is not on PATH: install PostgreSQL's client tools") from None


@click.command()
@type_option(required=True)
@days_options(required=True)
@output_dir_option
@debug_option
def dump(aggregate_type: AggregateType, days: DayRange, output_dir: Path) -> None:
    """Dump the tables of one or more days, an archive for each day.

    A day's pg_dump archive is the folder OUTPUT_DIR/TYPE/YYYYMMDD.
    """
    check_partitions(days)
    partitions = [Partition(aggregate_type, each) for each in days]
    if existing := [output_dir / each.path for each in partitions if (output_dir / each.path).exists()]:
        raise UserError(f"{existing[0]} exists already: remove it, or name another folder")
    (output_dir / aggregate_type).mkdir(parents=True, exist_ok=True)
    dumped, failures = _dump(partitions, output_dir)
    if failures:
        raise DataError(f"{len(failures)} of {len(days)} days were not dumped: {'; '.join(failures)}")
    if not dumped:
        raise UserError("nothing was dumped: `mozagg2bq tables` lists what the source has")


def _dump(partitions: Sequence[Partition], output_dir: Path) -> tuple[int, list[str]]:
    """How many were dumped, and a line for each that failed."""
    dumped, failures = 0, []
    with TemporaryDirectory(dir=output_dir, prefix=".dump-") as work:
        for partition, found in Dumper(open_source(read_postgres()), Path(work)).dump(partitions):
            if isinstance(found, OperatorError):
                failures.append(f"{partition.ds_nodash}: {found}")
            elif found is None:
                click.echo(f"{partition}: the source has no tables of this day", err=True)
            else:
                found.archive.directory.rename(output_dir / partition.path)
                click.echo(f"{output_dir / partition.path}: {len(found.rows)} tables, {found.rows.total:,} rows")
                dumped += 1
    return dumped, failures
