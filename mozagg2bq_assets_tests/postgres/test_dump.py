"""Dumping days: what is taken, how it is split, and that each day is an archive by itself."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from mozagg2bq_assets import patience
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType, SourceTable
from mozagg2bq_assets.parquet.writer import write_parquet
from mozagg2bq_assets.patience import Patience
from mozagg2bq_assets.postgres import dump as dump_module
from mozagg2bq_assets.postgres import pg_dump
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets.postgres.dump import Dumper, PartitionDump
from mozagg2bq_assets.postgres.tables import count_table, list_tables
from mozagg2bq_assets_tests.helpers.archives import counted
from mozagg2bq_assets_tests.helpers.debian_postgres import debian_tools
from mozagg2bq_assets_tests.helpers.engines import dump
from mozagg2bq_assets_tests.helpers.rows import parquet_rows
from mozagg2bq_assets_tests.helpers.standby import Standby, standby_of

TYPE = AggregateType.BUILD_ID
PARTITIONS = [Partition(TYPE, date(2019, 12, n)) for n in (1, 2, 3)]
FIRST, SECOND, THIRD = PARTITIONS


@pytest.fixture
def tables(administrator: psycopg.Connection) -> dict[Partition, list[str]]:
    """The tables of two sample days; the third day has none."""
    sample.create_update_dates(administrator)
    return {each: list(sample.seed_partition(administrator, each, 0.001)) for each in (FIRST, SECOND)}


def test_one_dump_for_several_days(tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path) -> None:
    """Each day gets a folder with its own tables; a day without tables gets none."""
    dumps = dump(source, PARTITIONS, tmp_path)
    assert {partition: sorted(found.rows) for partition, found in dumps.items()} == {
        partition: sorted(names) for partition, names in tables.items()
    }
    assert sorted(path.name for path in (tmp_path / TYPE).iterdir()) == ["20191201", "20191202"]


def test_a_day_restores_by_itself(
    administrator: psycopg.Connection, tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path
) -> None:
    """pg_restore puts a day's tables, rows and indexes into an empty database, though other days' files are absent."""
    archive = dump(source, PARTITIONS, tmp_path)[SECOND].archive
    administrator.execute("CREATE DATABASE restored TEMPLATE template0")
    try:
        options = ("--host", os.environ["POSTGRES_HOST"], "--username=postgres", "--dbname=restored", "--exit-on-error")
        use_list = f"--use-list={archive.directory / 'toc.list'}"
        subprocess.run(("pg_restore", *options, use_list, str(archive.directory)), check=True)
        with psycopg.connect(host=os.environ["POSTGRES_HOST"], user="postgres", dbname="restored") as restored:
            for name in tables[SECOND]:
                query = f"SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM \"{name}\" t"
                assert restored.execute(query).fetchone() == administrator.execute(query).fetchone()
            (indexes,) = restored.execute("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'").fetchone() or (
                0,
            )
            assert indexes == len(tables[SECOND])
    finally:
        administrator.execute("DROP DATABASE restored WITH (FORCE)")


def test_look_alikes_are_not_taken(
    administrator: psycopg.Connection, tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path
) -> None:
    """Only plain tables of schema public whose name is an aggregate table's."""
    columns = "(dimensions jsonb, histogram bigint[])"
    for statement in (
        f"CREATE TABLE build_id_nightly_74_20191201_old {columns}",
        f"CREATE TABLE staging_build_id_nightly_74_20191201 {columns}",
        f'CREATE TABLE "build_id_Nightly_74_20191201" {columns}',
        f"CREATE TABLE build_id_nightly_75_20191201 {columns} PARTITION BY LIST (dimensions)",
        "CREATE VIEW build_id_nightly_76_20191201 AS SELECT 1",
        f"CREATE SCHEMA elsewhere CREATE TABLE build_id_nightly_77_20191201 {columns}",
    ):
        administrator.execute(statement)
    try:
        dumped = dump(source, [FIRST], tmp_path)[FIRST]
    finally:
        administrator.execute("DROP SCHEMA elsewhere CASCADE")
    assert sorted(dumped.rows) == sorted(tables[FIRST])


@pytest.fixture
def standby(tables: dict[Partition, list[str]], source: Postgres) -> Iterator[Standby]:
    """Of the source, with its tables."""
    with standby_of(source) as standby:
        yield standby


def test_standby(tables: dict[Partition, list[str]], standby: Standby, tmp_path: Path) -> None:
    """A standby shares its snapshots too, so its dump is counted in the one that it was taken in."""
    with standby.postgres.connect() as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    dumps = dump(standby.postgres, PARTITIONS, tmp_path)
    for partition, names in tables.items():
        dumped = dumps[partition]
        assert dumped.snapshot is not None
        assert (dumped.source_rows or {}).keys() == set(names)
        assert dumped.rows.total == 250
        assert dumped.held_seconds > 0


def test_table_dropped_on_the_primary(
    standby: Standby,
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The standby ends our sessions to replay it. The dump is done again, of what is then there."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.2)
    table, said, dropped = tables[FIRST][0], list[str](), list[str]()

    def drop_and_wait(message: str) -> None:
        if not message.startswith("pg_dump: reading") or dropped:
            return
        dropped.append(message)
        administrator.execute(f"DROP TABLE {table}".encode())
        standby.wait_for_replay(administrator)

    dumps = dict(Dumper(standby.postgres, tmp_path, drop_and_wait, Patience(20, said.append)).dump([FIRST, SECOND]))
    first, second = dumps[FIRST], dumps[SECOND]
    assert isinstance(first, PartitionDump)
    assert isinstance(second, PartitionDump)
    assert table not in first.rows
    assert (len(first.rows), second.rows.total) == (5, 250)
    assert dropped
    assert said


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_any_compression(tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path, level: int) -> None:
    """Folders that others made with pg_dump, with gzip of any level or without."""
    folder = tmp_path / "20191201"
    names = [f'--table=public."{name}"' for name in tables[FIRST]]
    command = ("pg_dump", "--format=directory", f"--compress={level}", f"--file={folder}", *names)
    subprocess.run(command, check=True, env={**os.environ, **source.environment()})
    archive = open_archive(folder, FIRST)
    assert write_parquet(archive, archive.created, tmp_path / "out.parquet").rows.total == 250


def remake(connection: psycopg.Connection, table: str) -> None:
    """Drop a table and make one of the same name, with other rows."""
    connection.execute(f"DROP TABLE {table}; CREATE TABLE {table} (dimensions jsonb, histogram bigint[])")
    connection.execute(f"INSERT INTO {table} SELECT '{{\"os\": \"new\"}}', '{{1}}' FROM generate_series(1, 7)")


def rewrite(connection: psycopg.Connection, table: str) -> None:
    """Have PostgreSQL write all rows into a new file, which an older snapshot sees as empty."""
    connection.execute(f"INSERT INTO {table} SELECT '{{}}', '{{1}}' FROM generate_series(1, 7)")
    connection.execute(f"ALTER TABLE {table} ALTER histogram TYPE text[] USING histogram::text[]")
    connection.execute(f"ALTER TABLE {table} ALTER histogram TYPE bigint[] USING histogram::bigint[]")


@pytest.mark.parametrize("change", [remake, rewrite])
def test_table_made_anew_before_it_is_locked(
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[psycopg.Connection, str], None],
) -> None:
    """Its rows are in the dump: a snapshot that is older than the lock would see none, and the counts would agree."""
    table = tables[FIRST][0]
    listings = 0

    def list_and_change(*arguments: Any) -> list[SourceTable]:
        nonlocal listings
        found = list_tables(*arguments)
        listings += 1
        if listings == 2:  # the one of the dump itself
            change(administrator, table)
        return found

    monkeypatch.setattr(dump_module, "list_tables", list_and_change)
    dumped = dump(source, [FIRST], tmp_path)[FIRST]
    (rows,) = administrator.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    assert rows >= 7
    assert dumped.rows[table] == rows


def test_table_that_vanishes_before_it_is_locked(
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tables are listed again, and the others dumped."""
    doomed = iter([None, tables[FIRST][0], tables[FIRST][1]])

    def list_and_drop(*arguments: Any) -> list[SourceTable]:
        found = list_tables(*arguments)
        if table := next(doomed, None):
            administrator.execute(f"DROP TABLE {table}")
        return found

    monkeypatch.setattr(dump_module, "list_tables", list_and_drop)
    assert dump(source, [FIRST], tmp_path)[FIRST].rows.keys() == set(tables[FIRST][2:])


def test_table_that_somebody_wants_to_drop(
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """He waits for our lock, and our other sessions would wait behind him for ever: that dump ends, the next has all.

    The count is held up until he waits. It is said which table that was.
    """
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(dump_module, "LOCK_WAIT_SECONDS", 2)
    monkeypatch.setattr("mozagg2bq_assets.postgres.pg_dump.LOCK_WAIT_SECONDS", 2)
    table, drops = tables[FIRST][0], list[Thread]()

    def drop() -> None:
        with psycopg.connect(administrator.info.dsn, autocommit=True) as connection:
            connection.execute(f"DROP TABLE {table}".encode())

    def count_behind_him(connection: psycopg.Connection, name: str) -> int:
        if not drops:
            drops.append(Thread(target=drop))
            drops[0].start()
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            while administrator.execute(waiting).fetchone() is None:
                pass
        return count_table(connection, name)

    monkeypatch.setattr(dump_module, "count_table", count_behind_him)
    said: list[str] = []
    dumps = dict(Dumper(source, tmp_path, patience=Patience(20, said.append)).dump([FIRST, SECOND]))
    drops[0].join()
    first = dumps[FIRST]
    assert isinstance(first, PartitionDump)
    assert isinstance(dumps[SECOND], PartitionDump)
    assert f"table {table} is wanted by a session that waits for this dump" in said[0]
    assert table not in first.rows


def test_locked_table_costs_its_day_only(
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The message names the table, after the lock wait; the other day is dumped."""
    monkeypatch.setattr(dump_module, "LOCK_WAIT_SECONDS", 1)
    table = tables[SECOND][0]
    with administrator.transaction():
        administrator.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        dumps = dict(Dumper(source, tmp_path).dump(PARTITIONS))
    assert isinstance(dumps[FIRST], PartitionDump)
    assert isinstance(dumps[SECOND], UserError)
    assert str(dumps[SECOND]).startswith(f"table {table} has been locked by another session for 1 seconds")


def test_rows_of_children_stay_out(
    administrator: psycopg.Connection, tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path
) -> None:
    """A table has its own rows in the dump and in the count, not those of tables that inherit from it."""
    table = tables[FIRST][0]
    before = dump(source, [FIRST], tmp_path / "before")[FIRST].rows[table]
    administrator.execute(
        f"CREATE TABLE late_rows () INHERITS ({table}); INSERT INTO late_rows VALUES ('{{}}', '{{1}}')"
    )
    assert dump(source, [FIRST], tmp_path / "after")[FIRST].rows[table] == before


COLUMNS = "(dimensions jsonb, histogram bigint[])"
DEFINITIONS = {
    "unlogged": ("build_id_esr_1_20191203", f"CREATE UNLOGGED TABLE {{}} {COLUMNS}"),
    "check": (
        "build_id_esr_1_20191203", "CREATE TABLE {} (dimensions jsonb, histogram bigint[], CHECK (dimensions ? 'os'))",
    ),
    "default": ("build_id_esr_1_20191203", "CREATE TABLE {} (dimensions jsonb, histogram bigint[] DEFAULT '{{0,0}}')"),
    "not null": ("build_id_esr_1_20191203", "CREATE TABLE {} (dimensions jsonb NOT NULL, histogram bigint[] NOT NULL)"),
    "primary key": (
        "build_id_esr_1_20191203", "CREATE TABLE {} (dimensions jsonb PRIMARY KEY, histogram bigint[])",
    ),
    "quoted name": ('"build_id_esr-try_1_20191203"', f"CREATE TABLE {{}} {COLUMNS}"),
}  # fmt: skip


@pytest.mark.parametrize(("table", "statement"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_same_columns_defined_otherwise(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, table: str, statement: str
) -> None:
    """Tables whose columns are the two are moved, whatever else their definitions say."""
    administrator.execute(statement.format(table))
    administrator.execute(f"""INSERT INTO {table} VALUES ('{{"os": "x"}}', '{{1}}')""")
    dumped = dump(source, [THIRD], tmp_path)[THIRD]
    assert dumped.rows == {table.strip('"'): 1}
    assert write_parquet(dumped.archive, FIRST.day, tmp_path / "out.parquet").rows.total == 1


def in_database(administrator: psycopg.Connection, source: Postgres, options: str) -> Iterator[Postgres]:
    """The source, in a database of its own with one table of one row whose label is not ASCII."""
    administrator.execute(f"CREATE DATABASE other TEMPLATE template0 {options}")
    try:
        with psycopg.connect(
            host=source.host, user="postgres", dbname="other", autocommit=True, client_encoding="utf8"
        ) as other:
            other.execute(f"CREATE TABLE build_id_esr_1_20191203 {COLUMNS}")
            other.execute("""INSERT INTO build_id_esr_1_20191203 VALUES ('{"label": "café"}', '{1}')""")
        yield replace(source, dbname="other")
    finally:
        administrator.execute("DROP DATABASE other WITH (FORCE)")


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("ENCODING 'LATIN1' LOCALE 'C'", {}),
        ("ENCODING 'UTF8'", {"PGCLIENTENCODING": "LATIN1"}),
        ("ENCODING 'UTF8'", {"PGHOSTADDR": "192.0.2.1"}),
        ("ENCODING 'UTF8'", {"PGOPTIONS": "-c search_path=pg_catalog"}),
    ],
)
def test_other_encodings_and_variables(
    administrator: psycopg.Connection,
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    environment: dict[str, str],
) -> None:
    """A label is the same whatever the database's encoding is, and whatever the shell says of PostgreSQL's clients."""
    with contextmanager(in_database)(administrator, source, options) as other:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        dumped = dump(other, [THIRD], tmp_path)[THIRD]
    file = write_parquet(dumped.archive, FIRST.day, tmp_path / "out.parquet")
    assert [row[7] for row in parquet_rows(file.path)] == ["café"]


def test_messages_in_english(
    tables: dict[Partition, list[str]], source: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Debian's pg_dump would speak German in this shell. It is older than the server, and says so."""
    monkeypatch.setenv("PATH", f"{debian_tools()}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    ((_, found),) = Dumper(source, tmp_path).dump([FIRST])
    assert "server version mismatch" in str(found)


def test_service_file_leads_nowhere_else(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PGSERVICE takes precedence over PGHOST in libpq; pg_dump does not get it."""
    (tmp_path / "services").write_text("[elsewhere]\nhost=192.0.2.1\nhostaddr=192.0.2.1\ndbname=elsewhere\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSERVICE", "elsewhere")
    administrator.execute(f"CREATE TABLE build_id_esr_1_20191203 {COLUMNS}")
    assert dump(source, [THIRD], tmp_path / "out")[THIRD].rows == {"build_id_esr_1_20191203": 0}


@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Pacific/Kiritimati"])
def test_archive_is_dated_in_utc(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """In one of these zones it is another day than in UTC."""
    monkeypatch.setenv("TZ", zone)
    administrator.execute(f"CREATE TABLE build_id_esr_1_20191203 {COLUMNS}")
    before = datetime.now(UTC).date()
    created = dump(source, [THIRD], tmp_path)[THIRD].archive.created
    assert before <= created <= datetime.now(UTC).date()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "15ms"),
        ("idle_in_transaction_session_timeout", "100ms"),
        ("transaction_timeout", "100ms"),
        ("lock_timeout", "1ms"),
    ],
)
def test_timeouts_of_a_database(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, setting: str, value: str
) -> None:
    """Timeouts that a database or role has do not end our sessions, nor pg_dump."""
    administrator.execute(f"CREATE TABLE build_id_esr_1_20191203 {COLUMNS}")
    administrator.execute("INSERT INTO build_id_esr_1_20191203 SELECT '{}', '{1}' FROM generate_series(1, 300000)")
    administrator.execute(f"ALTER DATABASE telemetry SET {setting} = '{value}'")
    try:
        assert dump(source, [THIRD], tmp_path)[THIRD].rows.total == 300_000
    finally:
        administrator.execute(f"ALTER DATABASE telemetry RESET {setting}")


def test_an_idle_timeout_of_a_database(administrator: psycopg.Connection, source: Postgres) -> None:
    """It does not end a session that has nothing to say for longer."""
    administrator.execute("ALTER DATABASE telemetry SET idle_session_timeout = '100ms'")
    try:
        with source.connect() as connection:
            time.sleep(0.5)
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        administrator.execute("ALTER DATABASE telemetry RESET idle_session_timeout")


def test_a_row_that_cannot_be_converted(
    administrator: psycopg.Connection, tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path
) -> None:
    """Its dump says so, and names the table; the other day is dumped."""
    administrator.execute(f"INSERT INTO {tables[FIRST][0]} VALUES (jsonb_build_object('label', repeat('x', 40000000)))")
    dumps = dict(Dumper(source, tmp_path).dump([FIRST, SECOND]))
    assert isinstance(dumps[SECOND], PartitionDump)
    assert re.search(rf"{tables[FIRST][0]}: \d+.dat: a row of more than 20 MiB", str(dumps[FIRST]))


def test_a_table_that_cannot_be_dumped(
    administrator: psycopg.Connection,
    tables: dict[Partition, list[str]],
    source: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only its own day fails; the others of the part are dumped once more, and together."""
    runs, run = [], pg_dump.run_pg_dump

    def counted_run(*arguments: Any) -> None:
        runs.append(arguments[2])
        run(*arguments)

    monkeypatch.setattr(dump_module, "run_pg_dump", counted_run)
    administrator.execute("CREATE TABLE build_id_nightly_73_20191203 (dimensions jsonb, histogram bigint[])")
    administrator.execute("INSERT INTO build_id_nightly_73_20191203 VALUES ('{}', '{1}')")
    administrator.execute("REVOKE pg_read_all_data FROM telemetry")
    administrator.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO telemetry")
    administrator.execute(f'REVOKE SELECT ON "{tables[SECOND][0]}" FROM telemetry')
    try:
        dumps = dict(Dumper(source, tmp_path).dump([FIRST, SECOND, THIRD]))
    finally:
        administrator.execute("GRANT pg_read_all_data TO telemetry")
    assert tables[SECOND][0] in str(dumps[SECOND])
    found = [dumps[FIRST], dumps[THIRD]]
    assert [each.rows.total for each in found if isinstance(each, PartitionDump)] == [250, 1]
    assert runs == [[FIRST, THIRD]]  # the lock before the dump has found it


@pytest.mark.parametrize("jobs", [1, 3])
def test_files_are_compressed(tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path, jobs: int) -> None:
    """Whatever pg_dump says of them while it works; the manifest's sums are those of the files."""
    for partition, found in Dumper(source, tmp_path, jobs=jobs).dump([FIRST, SECOND]):
        assert isinstance(found, PartitionDump)
        folder = tmp_path / partition.path
        assert {path.suffix for path in folder.iterdir()} == {".gz", ".dat", ".list"}
        assert [path.name for path in folder.glob("*.dat")] == ["toc.dat"]
        assert sorted(found.files, key=str) == sorted(map(describe, folder.glob("*.dat.gz")), key=str)
        assert counted(open_archive(folder, partition)) == found.rows
