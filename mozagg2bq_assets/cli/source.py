"""`mozagg2bq tables`, `psql`, `dump`: the source's tables, a session, and dumps into folders."""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from mozagg2bq_assets.cli.options import (
    days_options,
    debug_option,
    json_option,
    output_dir_option,
    print_json,
    quiet_option,
    type_option,
    types,
)
from mozagg2bq_assets.cli.partitions import check_partitions
from mozagg2bq_assets.cli.progress import Tell, progress
from mozagg2bq_assets.errors import Attempt, DataError, OperatorError, UserError
from mozagg2bq_assets.model.partitions import DayRange, Partition
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.dump import TABLE_BEGUN, Dumper
from mozagg2bq_assets.postgres.tables import list_names, list_tables
from mozagg2bq_assets.settings import read_postgres


@click.command()
@type_option(required=False)
@days_options(required=False)
@json_option
@debug_option
def tables(aggregate_type: AggregateType | None, days: DayRange | None, as_json: bool) -> None:
    """List the source's aggregate tables, one a line.

    Without days, the tables of all days are listed.
    """
    with open_source(read_postgres()).connect() as connection:
        names = [name for each in types(aggregate_type) for name in list_names(connection, each)]
    names = [table.name for table in map(SourceTable.parse, names) if table and (days is None or table.day in days)]
    if as_json:
        print_json(names)
    elif not names:
        click.echo("the source has no such tables", err=True)
    else:
        click.echo("".join(f"{name}\n" for name in names), nl=False)


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
@json_option
@quiet_option
@debug_option
def dump(aggregate_type: AggregateType, days: DayRange, output_dir: Path, as_json: bool) -> None:
    """Dump the tables of one or more days, an archive for each day.

    A day's pg_dump archive is the folder OUTPUT_DIR/TYPE/YYYYMMDD.
    """
    check_partitions(days)
    partitions = [Partition(aggregate_type, each) for each in days]
    if existing := [output_dir / each.path for each in partitions if (output_dir / each.path).exists()]:
        raise UserError(f"{existing[0]} exists already: remove it, or name another folder")
    (output_dir / aggregate_type).mkdir(parents=True, exist_ok=True)
    results = dict(_dump(partitions, output_dir))
    failures = [f"{each.ds_nodash}: {error}" for each, error in results.items() if isinstance(error, OperatorError)]
    dumped = [result for result in results.values() if isinstance(result, dict)]
    if as_json:
        print_json(dumped)
    else:
        click.echo("".join("{path}: {tables} tables, {rows:,} rows\n".format(**result) for result in dumped), nl=False)
    for empty in (each for each, result in results.items() if result is None):
        click.echo(f"{empty}: the source has no tables of this day", err=True)
    if failures:
        raise DataError(f"{len(failures)} of {len(days)} days were not dumped: {'; '.join(failures)}")
    if not dumped:
        raise UserError("nothing was dumped: `mozagg2bq tables` lists what the source has")


def _dump(
    partitions: Sequence[Partition], output_dir: Path
) -> Iterator[tuple[Partition, Attempt[dict[str, Any] | None]]]:
    """What was dumped of each partition, or why it was not; None where the source has no tables of it."""
    source = open_source(read_postgres())
    with source.connect() as connection:
        tables = len(list_tables(connection, partitions))
    with TemporaryDirectory(dir=output_dir, prefix=".dump-") as work, progress("dumping", tables) as tell:
        for partition, found in Dumper(source, Path(work), _told(Path(work), tables, tell)).dump(partitions):
            if found is None or isinstance(found, OperatorError):
                yield partition, found
            else:
                path = output_dir / partition.path
                found.archive.directory.rename(path)
                yield (
                    partition,
                    {
                        "aggregate_type": partition.aggregate_type,
                        "day": partition.day,
                        "path": path,
                        "tables": len(found.rows),
                        "rows": found.rows.total,
                    },
                )


def _told(work: Path, tables: int, tell: Tell) -> Callable[[str], None]:
    """What hears pg_dump, and tells how far it is: tables that have begun, and what has been written of them."""
    begun, started, before = 0, time.monotonic(), _size(work)

    def hear(message: str) -> None:
        nonlocal begun
        if message.startswith(TABLE_BEGUN):
            begun += 1
            written = (_size(work) - before) / 1e6
            rate = written / max(time.monotonic() - started, 0.1)
            done = re.search(r"[\d,]+ rows", message)
            rows = f"{done[0]}, " if done else ""
            tell(begun, f"{begun} of {tables} tables, {rows}{written:,.1f} MB, {rate:,.1f} MB/s")

    return hear


def _size(folder: Path) -> int:
    """Bytes of all files below it. One that goes meanwhile counts as nothing."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            size += path.stat().st_size
    return size
