"""The assets in real Dagster runs, on the embedded stack."""

import json
import logging
import os
from datetime import date, timedelta
from itertools import product
from pathlib import Path

import pytest
from dagster import AssetCheckKey, AssetRecordsFilter, DagsterInstance, TableMetadataValue
from psycopg import sql

from mozagg2bq_assets.defs.assets import AGAIN
from mozagg2bq_assets.defs.keys import RECONCILIATION, ROW_COUNT, source_key, stage_key
from mozagg2bq_assets.defs.partitions import daily_partitions
from mozagg2bq_assets.defs.specs import check_specs
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.lake.manifest import MANIFESTS, DumpManifest, ParquetManifest
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.counts import ChannelCounts
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage, remedy
from mozagg2bq_assets.pipeline.reconcile import reconcile
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.settings import read_postgres
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline, checks, failure_of, materialized

FIRST, SECOND, THIRD = DAYS
STAGES = tuple(Stage)
DAILY = daily_partitions(FIRST)


def one(day: date) -> DayRange:
    """That day alone."""
    return DayRange(day, day + timedelta(days=1))


def versions(pipeline: Pipeline, *days: date) -> dict[tuple[Stage, date], str]:
    """The versions that the lake has of those days."""
    return {(kind.of, day): pipeline.manifest(kind, day).version for kind in MANIFESTS for day in days}


def test_three_days(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage of every day is materialized and checked, and all counts agree."""
    monkeypatch.setattr("mozagg2bq_assets.pipeline.reconcile.DAYS_AT_ONCE", 2)
    result = pipeline.run()
    assert result.success
    assert materialized(result) == {stage: [str(day) for day in DAYS] for stage in STAGES}
    assert [check.passed for check in checks(result)] == [True] * 9
    # Every check that the assets declare is evaluated for every day.
    declared = {(spec.asset_key, spec.name, str(day)) for spec in check_specs(TYPE, DAILY) for day in DAYS}
    assert {(check.asset_key, check.check_name, check.partition) for check in checks(result)} == declared
    report = pipeline.reconcile()
    assert report.differences == []
    assert [(day.source_rows, day.dump_rows, day.parquet_rows, day.bigquery_rows) for day in report.days] == [
        (250,) * 4
    ] * 3


def test_materialization_says_what_users_want_to_see(pipeline: Pipeline) -> None:
    """Rows, bytes, seconds, where, the schema, rows by channel and version, a preview."""
    result = pipeline.run(one(FIRST))
    metadata = {
        event.asset_key.path[1]: event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    for stage in STAGES:
        assert metadata[stage]["dagster/partition_row_count"].value == 250
        assert {"MB", "seconds", "rows"} <= metadata[stage].keys()
    assert metadata["raw_dump"]["tables"].value == 6
    assert str(metadata["parquet"]["dagster/uri"].value).startswith(
        f"s3://lake/{pipeline.lake.prefix}/parquet/build_id/2019"
    )
    assert str(metadata["bigquery_table"]["partition"].value).endswith("build_id_aggregates$20191201")
    assert {"preview", "dagster/column_schema"} <= metadata["bigquery_table"].keys()
    tables, channels = metadata["raw_dump"]["rows"], metadata["parquet"]["rows"]
    assert isinstance(tables, TableMetadataValue)
    assert isinstance(channels, TableMetadataValue)
    assert list(tables.records[0].data) == ["channel", "version", "rows", "table"]
    rows = [int(str(record.data["rows"])) for record in channels.records]
    assert rows == sorted(rows, reverse=True)


def test_a_check_names_the_materialization_it_judges(pipeline: Pipeline) -> None:
    """Otherwise Dagster's page shows every day's check as missing."""
    with DagsterInstance.ephemeral() as instance:
        result = pipeline.run(instance=instance)
        for check in checks(result):
            record = instance.fetch_materializations(
                AssetRecordsFilter(check.asset_key, asset_partitions=[str(check.partition)]), limit=1
            ).records[0]
            assert check.target_materialization_data is not None
            assert check.target_materialization_data.storage_id == record.storage_id


def test_the_log_of_a_run(pipeline: Pipeline) -> None:
    """A line for each day and stage as it begins and as it ends, pg_dump's tables, a warning, and nothing else."""
    pipeline.drop_day(SECOND)
    with DagsterInstance.ephemeral() as instance:
        result = pipeline.run(instance=instance)
        entries = [entry for entry in instance.all_logs(result.run_id) if entry.dagster_event is None]
        (run,) = instance.get_runs()
        assert run.tags[TYPE] == f"3 days, {FIRST} to {THIRD}"
    said = [entry.user_message for entry in entries]
    assert f"{FIRST} to {THIRD} raw_dump: begins" in said
    for stage, day in product(STAGES, (FIRST, THIRD)):
        (line,) = [line for line in said if f" of 3 days, {day} {stage}: 250 rows, " in line]
        assert line.endswith(" s")
    (table,) = [line for line in said if line.startswith("pg_dump: ")]
    assert table.endswith(" (1 of 12; 0 rows are done)")
    warned = [entry.user_message for entry in entries if entry.level == logging.WARNING]
    assert len(warned) == 3
    assert "the source has no rows of this day: nothing is stored or loaded" in warned[0]
    assert not [line for line in said if "did not yield" in line]


def test_a_day_that_was_committed_before(pipeline: Pipeline) -> None:
    """It is not done again in the same backfill, and says which run has done it."""
    first = pipeline.run(one(FIRST), backfill="b")
    again = pipeline.run(one(FIRST), backfill="b")
    said = {
        event.step_materialization_data.materialization.description
        for event in again.get_asset_materialization_events()
    }
    assert said == {f"{FIRST} {stage}: 250 rows, committed already by run {first.run_id}" for stage in STAGES}


def test_checks_alone_count_again(pipeline: Pipeline) -> None:
    """All days that are there, in the lake and in BigQuery: "Execute all" on the checks' page."""
    from mozagg2bq_assets.definitions import defs

    with DagsterInstance.ephemeral() as instance:
        assert pipeline.run(instance=instance).success
        pipeline.lake.delete(pipeline.object_keys(Stage.PARQUET, ".parquet", SECOND))
        job = defs().resolve_implicit_global_asset_job_def()
        keys = {AssetCheckKey(stage_key(TYPE, stage), ROW_COUNT) for stage in STAGES}
        selected = job.get_subset(asset_selection=set(), asset_check_selection=keys)
        result = selected.execute_in_process(instance=instance)
    assert result.success
    assert len(checks(result)) == 9
    (red,) = [check for check in checks(result) if not check.passed]
    assert (red.asset_key.path[1], red.partition) == ("parquet", str(SECOND))
    assert str(red.description).endswith(
        f" is missing from the lake: materialize build_id/parquet of {SECOND}, then bigquery_table"
    )


def test_twice_is_once(pipeline: Pipeline) -> None:
    """Materializing again replaces: the same rows once, and one version in the lake."""
    assert pipeline.run().success
    first = pipeline.manifest(DumpManifest)
    assert pipeline.run().success
    assert pipeline.reconcile().differences == []
    assert pipeline.manifest(DumpManifest).version != first.version
    for kind in MANIFESTS:
        assert len(pipeline.object_keys(kind.of, "")) == len(pipeline.manifest(kind).files) + 2  # its manifest, twice


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone(pipeline: Pipeline, stage: Stage) -> None:
    """Any stage of any day can be materialized alone, from what the lake has."""
    assert pipeline.run().success
    result = pipeline.run(one(SECOND), [stage])
    assert result.success
    assert materialized(result)[stage] == [str(SECOND)]
    assert sum(len(days) for days in materialized(result).values()) == 1


def test_day_without_tables(pipeline: Pipeline) -> None:
    """It is materialized as empty with a warning, nothing is stored, and the days behind it go on."""
    pipeline.drop_day(SECOND)
    result = pipeline.run()
    assert result.success
    assert materialized(result)["bigquery_table"] == [str(day) for day in DAYS]
    warned = [check for check in checks(result) if not check.passed]
    assert [(check.partition, check.severity.value) for check in warned] == [(str(SECOND), "WARN")] * 3
    assert pipeline.lake.read(DumpManifest, Partition(TYPE, SECOND)) is None
    assert [day.bigquery_rows for day in pipeline.reconcile().days] == [250, 0, 250]


def test_day_of_empty_tables(pipeline: Pipeline) -> None:
    """As a day without tables."""
    pipeline.drop_day(SECOND)
    sample.create_table(pipeline.source, "build_id_nightly_73_20191202")
    assert pipeline.run().success
    assert pipeline.lake.read(DumpManifest, Partition(TYPE, SECOND)) is None
    assert pipeline.reconcile().differences == []


def test_vanished_source_is_not_forgotten(pipeline: Pipeline) -> None:
    """What the lake has of a day stays when the aggregator has trimmed its tables."""
    assert pipeline.run().success
    kept = pipeline.manifest(DumpManifest).version
    pipeline.drop_day(FIRST)
    result = pipeline.run()
    assert result.success
    assert any("is kept" in (check.description or "") for check in checks(result))
    assert pipeline.manifest(DumpManifest).version == kept
    assert [day.bigquery_rows for day in pipeline.reconcile().days] == [250, 250, 250]


def test_table_that_cannot_be_read_costs_its_day_only(pipeline: Pipeline) -> None:
    """The common dump fails, so days are dumped one by one; the run fails and names the bad day, without a password."""
    (table,) = pipeline.source.execute(
        "SELECT relname FROM pg_class WHERE relname LIKE 'build_id_nightly_73_20191202%' AND relkind = 'r'"
    ).fetchone() or ("",)
    pipeline.source.execute("REVOKE pg_read_all_data FROM telemetry")
    pipeline.source.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO telemetry")
    pipeline.source.execute(sql.SQL("REVOKE SELECT ON {} FROM telemetry").format(sql.Identifier(table)))
    try:
        result = pipeline.run()
    finally:
        pipeline.source.execute("GRANT pg_read_all_data TO telemetry")
    assert not result.success
    assert materialized(result) == {stage: [str(FIRST), str(THIRD)] for stage in STAGES}
    reason = f"PostgreSQL: permission denied for table {table}"
    assert failure_of(result) == (f"{reason} ({SECOND}); 1 of 3 days of build_id failed: {AGAIN}")
    (red,) = [check for check in checks(result) if not check.passed]
    assert red.description == f"{reason}; when that is mended, {remedy(Partition(TYPE, SECOND), Stage.RAW_DUMP)}"
    assert os.environ["POSTGRES_PASS"] not in str(result.all_events)


def test_damaged_dump_costs_its_day_only(pipeline: Pipeline) -> None:
    """A changed byte in the lake stops that day, names the object, and leaves Parquet and BigQuery as they were.

    The check of the dump is red too, as that is what has to be made again.
    """
    assert pipeline.run().success
    key = pipeline.flip_bit(Stage.RAW_DUMP, ".dat.gz", SECOND)
    before = pipeline.manifest(ParquetManifest, SECOND)
    result = pipeline.run(stages=(Stage.PARQUET, Stage.BIGQUERY_TABLE))
    assert not result.success
    assert materialized(result)["bigquery_table"] == [str(FIRST), str(THIRD)]
    assert f"{key}: damaged, not as its manifest says: materialize build_id/raw_dump of {SECOND}" in failure_of(result)
    red = [(check.asset_key.path[1], check.partition) for check in checks(result) if not check.passed]
    assert red == [("raw_dump", str(SECOND)), ("parquet", str(SECOND))]
    assert pipeline.manifest(ParquetManifest, SECOND) == before


def test_counts_that_differ_are_shown_as_a_table(pipeline: Pipeline) -> None:
    """A Parquet file with fewer rows than its manifest stops the load, and the check shows both numbers."""
    assert pipeline.run(one(FIRST)).success
    manifest = pipeline.manifest(ParquetManifest)
    more = ChannelCounts({name: rows + (name == "nightly 73") for name, rows in manifest.rows.items()})
    pipeline.lake.publish(manifest.model_copy(update={"rows": more}))
    result = pipeline.run(one(FIRST), [Stage.BIGQUERY_TABLE])
    (check,) = checks(result)
    assert not check.passed
    differences = check.metadata["differences"]
    assert isinstance(differences, TableMetadataValue)
    assert [record.data for record in differences.records] == [
        {"name": "nightly 73", "expected": more["nightly 73"], "found": manifest.rows["nightly 73"]}
    ]


def test_resumed_run_works_on_what_is_missing(pipeline: Pipeline) -> None:
    """Days that a run of the same backfill committed are recognized, and the failed one is done."""
    table = "build_id_nightly_73_20191202"
    pipeline.source.execute(f"ALTER TABLE {table} RENAME COLUMN histogram TO other; ALTER TABLE {table} ADD more int")
    failed = pipeline.run(backfill="first")
    assert not failed.success
    assert materialized(failed) == {stage: [str(FIRST), str(THIRD)] for stage in STAGES}
    before = versions(pipeline, FIRST, THIRD)
    pipeline.drop_day(SECOND)
    pipeline.seed(one(SECOND))
    result = pipeline.run(backfill="first")
    assert result.success, failure_of(result)
    assert materialized(result) == {stage: [str(day) for day in DAYS] for stage in STAGES}
    assert all(check.passed for check in checks(result))
    assert versions(pipeline, FIRST, THIRD) == before
    assert pipeline.reconcile().differences == []


def test_new_backfill_ingests_anew(pipeline: Pipeline) -> None:
    """Another backfill, or a run of none, replaces every day."""
    found = set()
    for backfill in ("first", "second", None):
        assert pipeline.run(one(FIRST), backfill=backfill).success
        found |= set(versions(pipeline, FIRST).values())
    assert len(found) == 9


def test_resumed_load_looks_at_the_partition(pipeline: Pipeline) -> None:
    """Rows that are gone from BigQuery meanwhile are loaded again."""
    assert pipeline.run(backfill="first").success
    table = pipeline.warehouse.table_id(TYPE)
    pipeline.warehouse.client.query(f"DELETE FROM `{table}` WHERE ds_nodash = '20191202' AND channel = 'beta'").result()
    assert pipeline.reconcile().differences != []
    assert pipeline.run(backfill="first").success
    assert pipeline.reconcile().differences == []


def test_keys_without_a_column_are_a_warning(pipeline: Pipeline) -> None:
    """They are named in the check of the Parquet stage, with an example; the rows are there all the same."""
    pipeline.source.execute("INSERT INTO build_id_nightly_73_20191201 VALUES ('{\"process\": \"gpu\"}', '{1}')")
    result = pipeline.run(one(FIRST))
    assert result.success
    (warned,) = [check for check in checks(result) if not check.passed]
    assert (warned.asset_key.path[1], warned.severity.value) == ("parquet", "WARN")
    assert "'process' in 1 rows, e.g. \"gpu\"" in (warned.description or "")
    assert pipeline.manifest(ParquetManifest).rows.total == 251


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("POSTGRES_HOST", "127.0.0.1", "cannot connect to PostgreSQL at 127.0.0.1"),
        ("POSTGRES_PASS", "wrong", "password authentication failed"),
        ("LAKE_URI", "s3://no-such-bucket/x", "NoSuchBucket"),
        ("LAKE_URI", "", "LAKE_URI is not set"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file", "BigQuery, credentials: File /no/such/file was not found"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/dev/null", "/dev/null is not a valid json file"),
    ],
)
def test_bad_settings(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """A run says in one line what is wrong, and changes nothing."""
    monkeypatch.setenv(variable, value)
    if variable == "POSTGRES_HOST":
        monkeypatch.setenv("POSTGRES_PORT", "1")
    result = pipeline.run(one(FIRST))
    assert not result.success
    assert message in failure_of(result)
    assert "\n" not in failure_of(result)
    assert materialized(result) == {stage: [] for stage in STAGES}


def test_a_run_needs_its_own_services_alone(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converting asks for nothing of PostgreSQL or BigQuery; dumping then says in one line what is missing."""
    assert pipeline.run(one(FIRST)).success
    for name in ("POSTGRES_HOST", "POSTGRES_PASS", "BIGQUERY_PROJECT"):
        monkeypatch.delenv(name)
    assert pipeline.run(one(FIRST), [Stage.PARQUET]).success
    result = pipeline.run(one(FIRST), [Stage.RAW_DUMP])
    assert not result.success
    assert failure_of(result).startswith("POSTGRES_HOST is not set; POSTGRES_PASS is not set: ")


def test_no_secret_anywhere(pipeline: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither events nor logs nor manifests hold a password."""
    result = pipeline.run()
    output = "".join(capfd.readouterr())
    manifests = "".join(pipeline.manifest(kind, day).to_json() for kind in MANIFESTS for day in DAYS)
    events = "".join(repr(event) for event in result.all_events)
    for name in ("POSTGRES_PASS", "AWS_SECRET_ACCESS_KEY"):
        assert len(os.environ[name]) > 20
        assert os.environ[name] not in output + manifests + events


def test_reconciliation_names_what_is_off(pipeline: Pipeline) -> None:
    """A row deleted in BigQuery, objects deleted in the lake, a new table in the source, a name that is none."""
    assert pipeline.run().success
    table = pipeline.warehouse.table_id(TYPE)
    pipeline.warehouse.client.query(f"DELETE FROM `{table}` WHERE ds_nodash = '20191201' AND channel = 'esr'").result()
    (parquet,) = pipeline.object_keys(Stage.PARQUET, ".parquet", SECOND)
    (dump, *_) = pipeline.object_keys(Stage.RAW_DUMP, ".dat.gz", THIRD)
    for key in (parquet, dump):
        pipeline.lake.client.delete_object(Bucket="lake", Key=key)
    sample.create_table(pipeline.source, "build_id_esr_78_20191203")
    sample.insert(pipeline.source, "build_id_esr_78_20191203", sample.EDGE_ROWS)
    sample.create_table(pipeline.source, "build_id_nightly_73_20191201_old")
    report = pipeline.reconcile()
    text = "\n".join(report.differences)
    assert "build_id 20191201: 223 rows in BigQuery, 250 in the Parquet file" in text
    assert f"build_id 20191202: parquet/build_id/{'/'.join(parquet.split('/')[-3:])} is missing from the lake" in text
    assert f"build_id 20191203: raw_dump/build_id/{'/'.join(dump.split('/')[-3:])} is missing from the lake" in text
    assert "build_id 20191203: table build_id_esr_78_20191203 has 13 rows in the source, 0 in the dump" in text
    assert len(report.differences) == 4
    assert report.notes == ["build_id_nightly_73_20191201_old: not the name of an aggregate table"]


def test_reconciliation_knows_which_file_was_loaded(pipeline: Pipeline) -> None:
    """Another Parquet file with equally many rows is not what BigQuery has, and neither is one that nobody loaded."""
    assert pipeline.run().success
    pipeline.source.execute("UPDATE build_id_nightly_73_20191201 SET histogram = '{9}'")
    assert pipeline.run(one(FIRST), (Stage.RAW_DUMP, Stage.PARQUET)).success
    for key in pipeline.object_keys(Stage.BIGQUERY_TABLE, "manifest.json", SECOND):
        pipeline.lake.delete([key])
    assert pipeline.reconcile().grouped == [
        f"{FIRST}: BigQuery has the rows of an earlier Parquet file: materialize build_id/bigquery_table",
        f"{SECOND}: nothing in the lake says which Parquet file BigQuery's rows are of: materialize"
        " build_id/bigquery_table",
    ]
    assert pipeline.run(stages=(Stage.BIGQUERY_TABLE,)).success
    assert pipeline.reconcile().differences == []


def test_reconciliation_runs_alone(pipeline: Pipeline) -> None:
    """The check can be run by itself, and fails where something differs."""
    from mozagg2bq_assets.definitions import defs

    assert pipeline.run().success
    pipeline.lake.client.delete_object(Bucket="lake", Key=pipeline.object_keys(Stage.PARQUET, ".parquet")[0])
    job = defs().resolve_implicit_global_asset_job_def()
    key = AssetCheckKey(source_key(TYPE), RECONCILIATION)
    selected = job.get_subset(asset_selection=set(), asset_check_selection={key})
    with DagsterInstance.ephemeral() as instance:
        result = selected.execute_in_process(instance=instance)
    assert result.success
    (check,) = checks(result)
    assert not check.passed
    assert str(check.description).startswith(f"{FIRST}: parquet/build_id/20191201/")
    assert str(check.description).endswith(
        " is missing from the lake: materialize build_id/parquet, then bigquery_table"
    )


def test_reconciliation_says_a_remedy_once(pipeline: Pipeline) -> None:
    """The error of a damaged manifest ends with one too."""
    assert pipeline.run(one(FIRST)).success
    pipeline.flip_bit(Stage.PARQUET, f"{FIRST:%Y%m%d}/manifest.json", FIRST)
    (line,) = [line for line in pipeline.reconcile(one(FIRST)).grouped if "damaged manifest" in line]
    assert line.endswith(": materialize build_id/parquet, then bigquery_table")
    assert line.count("materialize") == 1


def test_reconciliation_groups_what_is_alike(pipeline: Pipeline) -> None:
    """Days that were never ingested are one line, and so are days whose tables the source has dropped."""
    report = pipeline.reconcile()
    assert [len(day.differences) for day in report.days] == [1, 1, 1]
    assert report.grouped == [
        f"3 days, {FIRST} to {THIRD}: in the source, and never ingested: materialize build_id/raw_dump, then"
        " parquet and bigquery_table"
    ]
    assert pipeline.run().success
    for day in (FIRST, SECOND):
        pipeline.drop_day(day)
    report = reconcile(pipeline.source, pipeline.lake, pipeline.warehouse, TYPE, DAYS)
    assert report.differences == []
    assert report.notes == [
        f"2 days, {FIRST} to {SECOND}: tables are no longer in the source; the lake keeps their rows"
    ]


def test_credentials_from_s3(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, user and password may come from a JSON object in S3."""
    names = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS")
    body = json.dumps({name: os.environ[name] for name in names})
    pipeline.lake.client.put_object(Bucket="lake", Key="credentials.json", Body=body.encode())
    monkeypatch.setenv("POSTGRES_CREDENTIALS_S3_URI", "s3://lake/credentials.json")
    for name in names:
        monkeypatch.delenv(name)
    assert pipeline.run(one(FIRST)).success
    pipeline.lake.client.put_object(Bucket="lake", Key="credentials.json", Body=b'{"POSTGRES_PASS": "x"}')
    with pytest.raises(UserError, match="is not a JSON object with POSTGRES_DB, POSTGRES_USER"):
        open_source(read_postgres())


def test_rebuilt_without_the_source(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trimmed day's Parquet file and partition are made again, exactly, from its dump, with PostgreSQL away."""
    pipeline.run()
    rows, before = pipeline.stored_rows(tmp_path), versions(pipeline, *DAYS)
    for name in pipeline.manifest(DumpManifest, FIRST).rows:
        pipeline.source.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    result = pipeline.run(one(FIRST), [Stage.PARQUET, Stage.BIGQUERY_TABLE])
    assert result.success
    assert [*materialized(result).values()] == [[], [str(FIRST)], [str(FIRST)]]
    assert pipeline.stored_rows(tmp_path) == rows
    assert pipeline.warehouse.count_partition(Partition(TYPE, FIRST)).total == 250
    after = versions(pipeline, *DAYS)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {(Stage.PARQUET, FIRST), (Stage.BIGQUERY_TABLE, FIRST)}
