"""Directory archives of pg_dump: what they hold, whether it is whole, and how one is split into partitions.

An archive is listed by `pg_restore --list`, which reads the table of contents of any pg_dump that is not newer than
itself; `toc.dat` is never parsed. Where a folder has a `toc.list`, it names the entries that belong to this folder;
`toc.dat` may list others.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.postgres.copytext import COLUMNS
from mozagg2bq_assets.postgres.tools import TOOLS_ENVIRONMENT

TOC = "toc.dat"
LIST = "toc.list"

# `3026; 0 16539 TABLE DATA public build_id_nightly_73_20191201 postgres`; a verbose list adds the ids of the entries
# that it depends on. A name with a blank would be cut there. No SourceTable has one, so such an archive is refused.
_ENTRY = re.compile(r"(\d+); \d+ \d+ (.*)")
_TABLE_DATA = re.compile(r"TABLE DATA (\S+) (\S+) .*")
_DEPENDS = re.compile(r";\s+depends on: (.*)")
# `pg_restore` prints a definition with a column or a constraint on each line. The name has quotes where it needs them.
_DEFINITION = re.compile(r"CREATE (?:UNLOGGED )?TABLE (?:public\.)?(\S+) \(\n(.*?)\n\)", re.DOTALL)
_COLUMN = re.compile(r'    (?!CONSTRAINT )("(?:[^"]|"")*"|\S+) ([^\s,]+)([^\n]*)')
_NEEDED = {"dimensions": "jsonb", "histogram": "bigint[]"}
_CREATED = re.compile(r";\s+Archive created at (\d{4}-\d\d-\d\d)")


class Entry(NamedTuple):
    """One line of an archive's list."""

    dump_id: str
    line: str
    depends_on: frozenset[str]

    @property
    def table(self) -> str | None:
        """The table whose rows this entry holds, as `schema.name` outside of public; None where it holds no rows."""
        match = _TABLE_DATA.fullmatch(self.line.split(" ", 3)[3])
        if match is None:
            return None
        schema, name = match.groups()
        return name if schema == "public" else f"{schema}.{name}"


@dataclass(frozen=True)
class Listing:
    """What `pg_restore --list` says of an archive; `created` is in the dumping machine's local time."""

    created: date
    entries: Sequence[Entry]


# Types of columns by name, by table.
Definitions: TypeAlias = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class DataFile:
    """One source table's rows in an archive, and its columns in their order there."""

    path: Path
    table: SourceTable
    columns: tuple[str, ...] = COLUMNS


@dataclass(frozen=True)
class PartitionArchive:
    """One partition's tables: a folder with `toc.dat`, perhaps `toc.list`, and a data file for each table.

    `created` is the day the archive was made, in the dumping machine's local time.
    """

    directory: Path
    partition: Partition
    created: date
    data_files: Sequence[DataFile]

    @property
    def left_out(self) -> dict[str, int]:
        """Columns that are neither dimensions nor histogram, and the number of tables that have them."""
        return dict(Counter(name for file in self.data_files for name in file.columns if name not in COLUMNS))

    @property
    def tables_of_contents(self) -> list[Path]:
        """Paths of `toc.dat` and `toc.list`; the second need not be there."""
        return [self.directory / TOC, self.directory / LIST]

    @property
    def paths(self) -> list[Path]:
        """Every file of it."""
        return [*self.tables_of_contents, *(file.path for file in self.data_files)]


def list_archive(directory: Path) -> Listing:
    """List an archive. Raises DataError where pg_restore cannot read it, UserError where there is no pg_restore."""
    text = _pg_restore(directory, "--list", "--verbose")
    created = _CREATED.search(text)
    if created is None:
        raise DataError(f"{directory / TOC}: unreadable archive: no list")
    return Listing(datetime.strptime(created[1], "%Y-%m-%d").date(), _entries(text))


def _pg_restore(directory: Path, *options: str) -> str:
    if not (directory / TOC).is_file():
        raise DataError(f"{directory}: no archive in directory format here, {TOC} is missing")
    environment = {**os.environ, **TOOLS_ENVIRONMENT}
    try:
        result = subprocess.run(
            ("pg_restore", *options, str(directory)), capture_output=True, check=False, timeout=600, env=environment
        )
    except FileNotFoundError:
        raise UserError("pg_restore is not on PATH: install PostgreSQL's client tools") from None
    if result.returncode:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise DataError(f"{directory / TOC}: unreadable archive: {reason[-1]}")
    return result.stdout.decode("utf-8", "replace")


def _entries(text: str) -> list[Entry]:
    entries: list[Entry] = []
    for line in text.splitlines():
        if match := _ENTRY.fullmatch(line):
            entries.append(Entry(match[1], line, frozenset()))
        elif (match := _DEPENDS.fullmatch(line)) and entries:
            entries[-1] = entries[-1]._replace(depends_on=frozenset(match[1].split()))
    return entries


def open_archive(directory: Path, partition: Partition) -> PartitionArchive:
    """Check the table of contents of a folder that claims to hold that partition's tables.

    Raises DataError for an unreadable archive, one without a table, a file that is missing or too many, a table of
    another partition, and one without the columns that are needed. The data files themselves are not read.
    """
    listing = list_archive(directory)
    files = data_file_names(directory, complete_entries(directory, listing), partition)
    found = {path.name for path in directory.iterdir()} - {TOC, LIST}
    if missing := sorted(files.keys() - found):
        raise DataError(f"{directory / missing[0]}: data file of {files[missing[0]].name} is missing")
    if extra := sorted(found - files.keys()):
        raise DataError(f"{directory / extra[0]}: not a file of this archive, its list does not name it")
    if not files:
        raise DataError(f"{directory}: no table in it")
    columns = table_columns(directory, read_definitions(directory), files.values())
    data_files = [DataFile(directory / name, table, columns[table.name]) for name, table in files.items()]
    return PartitionArchive(directory, partition, listing.created, data_files)


def complete_entries(directory: Path, listing: Listing) -> Sequence[Entry]:
    """The entries that are complete in this folder: those of `toc.list`, which must all be in `toc.dat` too."""
    if not (directory / LIST).exists():
        return listing.entries
    by_line = {entry.line: entry for entry in listing.entries}
    lines = [
        line for line in (directory / LIST).read_text("utf-8", "replace").splitlines() if line[:1] not in ("", ";")
    ]
    if unknown := [line for line in lines if line not in by_line]:
        raise DataError(f"{directory / LIST}: {TOC} has no entry {unknown[0]!r}")
    return [by_line[line] for line in lines]


def data_file_names(directory: Path, entries: Iterable[Entry], partition: Partition) -> dict[str, SourceTable]:
    """File name of each table's rows. pg_dump names them after the entry: `3026.dat.gz`, uncompressed `3026.dat`."""
    files: dict[str, SourceTable] = {}
    for entry in entries:
        if entry.table is not None:
            table = SourceTable.parse(entry.table)
            if table is None or Partition.of(table) != partition:
                raise DataError(f"{directory / TOC}: {entry.table} is no table of {partition}")
            plain = directory / f"{entry.dump_id}.dat"
            files[plain.name if plain.exists() else f"{plain.name}.gz"] = table
    return files


def read_definitions(directory: Path) -> Definitions:
    """The columns of the archive's tables, as it defines them."""
    only = (f"--use-list={directory / LIST}",) if (directory / LIST).exists() else ()
    script = _pg_restore(directory, "--section=pre-data", "--file=-", *only)
    return {name.strip('"'): _defined_columns(columns) for name, columns in _DEFINITION.findall(script)}


def table_columns(directory: Path, defined: Definitions, tables: Collection[SourceTable]) -> dict[str, tuple[str, ...]]:
    """The columns that each of those tables has in the archive, in their order there.

    Raises DataError for one without `dimensions jsonb` or `histogram bigint[]`: a column's type decides which text it
    can hold, so the rows need not be checked for it one by one.
    """
    for table in tables:
        columns = defined.get(table.name, {})
        if any(columns.get(name) != kind for name, kind in _NEEDED.items()):
            raise DataError(
                f"{directory / TOC}: the columns of {table.name} are not dimensions jsonb, histogram bigint[]"
            )
    return {table.name: tuple(defined[table.name]) for table in tables}


def _defined_columns(definition: str) -> dict[str, str]:
    """Types of a table's columns by name. Generated columns are left out, as pg_dump does not dump their values."""
    return {
        name.strip('"').replace('""', '"'): kind
        for name, kind, rest in _COLUMN.findall(definition)
        if "GENERATED ALWAYS AS (" not in rest
    }


@dataclass(frozen=True)
class CommonArchive:
    """An archive of several partitions, whose table of contents has been read once."""

    directory: Path
    listing: Listing
    definitions: Definitions

    @classmethod
    def read(cls, directory: Path) -> "CommonArchive":
        """Raises DataError where pg_restore cannot read it."""
        return cls(directory, list_archive(directory), read_definitions(directory))

    def split_off(self, partition: Partition, tables: Sequence[SourceTable], target: Path) -> PartitionArchive:
        """Move the data files of a partition's tables into a folder of their own, which is an archive by itself.

        The folder gets a copy of `toc.dat`, and a `toc.list` that `pg_restore --use-list` takes: the tables, their rows
        and whatever depends on them, in the archive's order. Raises DataError for a table that is not there, or has not
        the columns that are needed.
        """
        entries, by_name = self.listing.entries, {table.name: table for table in tables}
        data = {entry.table: entry for entry in entries if entry.table in by_name}
        if missing := by_name.keys() - data.keys():
            raise DataError(f"pg_dump left out {min(missing)}")
        columns = table_columns(self.directory, self.definitions, tables)
        kept = frozenset().union(*(entry.depends_on for entry in data.values()))
        own = {entry.dump_id for entry in data.values()} | kept
        target.mkdir(parents=True)
        (target / TOC).write_bytes((self.directory / TOC).read_bytes())
        (target / LIST).write_text(
            "".join(f"{entry.line}\n" for entry in entries if entry.dump_id in own or entry.depends_on & kept)
        )
        files = [
            DataFile(target / f"{entry.dump_id}.dat.gz", by_name[name], columns[name])
            for name, entry in data.items()
            if name is not None
        ]
        for file in files:
            (self.directory / file.path.name).rename(file.path)
        return PartitionArchive(target, partition, self.listing.created, files)
