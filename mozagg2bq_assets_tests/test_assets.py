"""The assets in real Dagster runs, on the embedded stack."""

import json
import os
from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

import psycopg
import pytest
from dagster import AssetCheckEvaluation, AssetKey, DagsterInstance, ExecuteInProcessResult
from psycopg import sql

from mozagg2bq_assets import environment
from mozagg2bq_assets.assets import STAGES, stage_key
from mozagg2bq_assets.lake.manifest import Manifest, Stage
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.reconcile import Range, Report, reconcile
from mozagg2bq_assets.schema import AggregateType
from mozagg2bq_assets.warehouse.bigquery import Warehouse

TYPE = AggregateType.BUILD_ID
DAYS = [date(2019, 12, n) for n in (1, 2, 3)]
END = date(2019, 12, 4)


class Pipeline(NamedTuple):
    """A seeded source, and a lake and a dataset of the test's own."""

    source: psycopg.Connection
    lake: Lake
    warehouse: Warehouse

    def run(
        self, days: Sequence[date] = DAYS, stages: Sequence[Stage] = STAGES, backfill: str | None = None
    ) -> ExecuteInProcessResult:
        """Materialize stages of consecutive days in one run."""
        from mozagg2bq_assets.definitions import defs

        with DagsterInstance.ephemeral() as instance:
            return defs.resolve_job_def(f"{TYPE}_job").execute_in_process(
                instance=instance,
                asset_selection=[stage_key(TYPE, stage) for stage in stages],
                tags={
                    "dagster/asset_partition_range_start": days[0].isoformat(),
                    "dagster/asset_partition_range_end": days[-1].isoformat(),
                    **({"dagster/backfill": backfill} if backfill else {}),
                },
                raise_on_error=False,
            )

    def reconcile(self) -> Report:
        """Everything against everything, with the source's rows counted."""
        return reconcile(self.source, self.lake, self.warehouse, TYPE, Range(DAYS[0], END, counted=True))

    def manifest(self, stage: Stage, day: date = DAYS[0]) -> Manifest:
        """The manifest of a day that has one."""
        manifest = self.lake.read_manifest(stage, TYPE, day)
        assert manifest is not None
        return manifest

    def object_keys(self, stage: Stage, suffix: str, day: date = DAYS[0]) -> list[str]:
        """Full keys of a day's objects with that ending."""
        root = f"{self.lake.prefix}/{stage}/{TYPE}"
        return [
            f"{root}/{key}"
            for key in self.lake.objects(stage, TYPE)
            if key[:8] == f"{day:%Y%m%d}" and key.endswith(suffix)
        ]

    def drop_day(self, day: date) -> None:
        """Drop the source's tables of a day."""
        sample.drop_day(self.source, TYPE, day)


@pytest.fixture
def pipeline(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse) -> Pipeline:
    """Three days in the source, nothing behind it."""
    sample.create_update_dates(administrator)
    for day in DAYS:
        for _ in sample.seed_day(administrator, TYPE, day, 0.001):
            pass
    return Pipeline(administrator, lake, warehouse)


def materialized(result: ExecuteInProcessResult) -> dict[str, list[str]]:
    """Days that were materialized, by stage."""
    days: dict[str, list[str]] = {stage: [] for stage in STAGES}
    for event in result.get_asset_materialization_events():
        assert event.asset_key is not None
        days[event.asset_key.path[1]].append(str(event.partition))
    return days


def checks(result: ExecuteInProcessResult) -> list[AssetCheckEvaluation]:
    """Verdicts of the checks."""
    return list(result.get_asset_check_evaluations())


def failure_of(result: ExecuteInProcessResult) -> str:
    """What the failed run says."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


def test_three_days(pipeline: Pipeline) -> None:
    """Every stage of every day is materialized and checked, and all counts agree."""
    result = pipeline.run()
    assert result.success
    assert materialized(result) == {stage: [str(day) for day in DAYS] for stage in STAGES}
    assert [check.passed for check in checks(result)] == [True] * 9
    report = pipeline.reconcile()
    assert report.differences == []
    assert [(day.source_rows, day.dump_rows, day.parquet_rows, day.bigquery_rows) for day in report.days] == [
        (250,) * 4
    ] * 3


def test_materialization_says_what_users_want_to_see(pipeline: Pipeline) -> None:
    """Rows, bytes, seconds, where, the schema, rows by channel and version, a preview."""
    result = pipeline.run(DAYS[:1])
    metadata = {
        event.asset_key.path[1]: event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    for stage in STAGES:
        assert metadata[stage]["dagster/partition_row_count"].value == 250
        assert {"bytes", "seconds", "location", "rows_by_name"} <= metadata[stage].keys()
    assert metadata["raw_dump"]["tables"].value == 6
    assert str(metadata["parquet"]["location"].value).startswith(
        f"s3://lake/{pipeline.lake.prefix}/parquet/build_id/2019"
    )
    assert str(metadata["bigquery_table"]["location"].value).endswith("build_id_aggregates$20191201")
    assert {"preview", "dagster/column_schema"} <= metadata["bigquery_table"].keys()


def test_twice_is_once(pipeline: Pipeline) -> None:
    """Materializing again replaces: the same rows once, and one version in the lake."""
    assert pipeline.run().success
    first = pipeline.manifest(Stage.RAW_DUMP)
    assert pipeline.run().success
    assert pipeline.reconcile().differences == []
    assert pipeline.manifest(Stage.RAW_DUMP).version != first.version
    for stage in Stage:
        assert len(pipeline.object_keys(stage, "")) == len(pipeline.manifest(stage).files) + 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_alone(pipeline: Pipeline, stage: str) -> None:
    """Any stage of any day can be materialized alone, from what the lake has."""
    assert pipeline.run().success
    result = pipeline.run([DAYS[1]], [stage])
    assert result.success
    assert materialized(result)[stage] == [str(DAYS[1])]
    assert sum(len(days) for days in materialized(result).values()) == 1


def test_day_without_tables(pipeline: Pipeline) -> None:
    """It is materialized as empty with a warning, nothing is stored, and the days behind it go on."""
    pipeline.drop_day(DAYS[1])
    result = pipeline.run()
    assert result.success
    assert materialized(result)["bigquery_table"] == [str(day) for day in DAYS]
    warned = [check for check in checks(result) if not check.passed]
    assert [(check.partition, check.severity.value) for check in warned] == [(str(DAYS[1]), "WARN")] * 3
    assert pipeline.lake.read_manifest(Stage.RAW_DUMP, TYPE, DAYS[1]) is None
    assert [day.bigquery_rows for day in pipeline.reconcile().days] == [250, 0, 250]


def test_day_of_empty_tables(pipeline: Pipeline) -> None:
    """As a day without tables."""
    pipeline.drop_day(DAYS[1])
    sample.create_table(pipeline.source, "build_id_nightly_73_20191202")
    assert pipeline.run().success
    assert pipeline.lake.read_manifest(Stage.RAW_DUMP, TYPE, DAYS[1]) is None
    assert pipeline.reconcile().differences == []


def test_vanished_source_is_not_forgotten(pipeline: Pipeline) -> None:
    """What the lake has of a day stays when the aggregator has trimmed its tables."""
    assert pipeline.run().success
    kept = pipeline.manifest(Stage.RAW_DUMP).version
    pipeline.drop_day(DAYS[0])
    result = pipeline.run()
    assert result.success
    assert any("is kept" in (check.description or "") for check in checks(result))
    assert pipeline.manifest(Stage.RAW_DUMP).version == kept
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
    assert materialized(result) == {stage: [str(DAYS[0]), str(DAYS[2])] for stage in STAGES}
    assert failure_of(result).startswith(f"1 of 3 days of build_id failed: {DAYS[1]}: pg_dump failed: error:")
    assert os.environ["POSTGRES_PASS"] not in str(
        [event.to_dict() if hasattr(event, "to_dict") else event for event in result.all_events]
    )


def test_damaged_dump_costs_its_day_only(pipeline: Pipeline) -> None:
    """A changed byte in the lake stops that day, names the object, and leaves Parquet and BigQuery as they were."""
    assert pipeline.run().success
    (key, *_) = pipeline.object_keys(Stage.RAW_DUMP, ".dat.gz", DAYS[1])
    body = bytearray(pipeline.lake.client.get_object(Bucket="lake", Key=key)["Body"].read())
    body[len(body) // 2] ^= 1
    pipeline.lake.client.put_object(Bucket="lake", Key=key, Body=bytes(body))
    before = pipeline.manifest(Stage.PARQUET, DAYS[1])
    result = pipeline.run(stages=(Stage.PARQUET, Stage.BIGQUERY_TABLE))
    assert not result.success
    assert materialized(result)["bigquery_table"] == [str(DAYS[0]), str(DAYS[2])]
    assert f"{key}: damaged, not as its manifest says" in failure_of(result)
    assert [(check.partition, check.passed) for check in checks(result) if not check.passed] == [(str(DAYS[1]), False)]
    assert pipeline.manifest(Stage.PARQUET, DAYS[1]) == before


def test_counts_that_differ_are_shown_as_a_table(pipeline: Pipeline) -> None:
    """A Parquet file with fewer rows than its manifest stops the load, and the check shows both numbers."""
    assert pipeline.run(DAYS[:1]).success
    manifest = pipeline.manifest(Stage.PARQUET)
    more = {name: rows + (name == "nightly 73") for name, rows in manifest.rows.items()}
    (key,) = pipeline.object_keys(Stage.PARQUET, "manifest.json")
    pipeline.lake.client.put_object(
        Bucket="lake", Key=key, Body=Manifest(**{**vars(manifest), "rows": more}).to_json().encode()
    )
    result = pipeline.run(DAYS[:1], [Stage.BIGQUERY_TABLE])
    (check,) = checks(result)
    assert not check.passed
    assert [record.data for record in check.metadata["differences"].records] == [
        {"name": "nightly 73", "expected": more["nightly 73"], "found": manifest.rows["nightly 73"]}
    ]


def test_resumed_run_works_on_what_is_missing(pipeline: Pipeline) -> None:
    """Days that a run of the same backfill committed are recognized, and the failed one is done."""
    table = "build_id_nightly_73_20191202"
    pipeline.source.execute(f"ALTER TABLE {table} RENAME COLUMN histogram TO other; ALTER TABLE {table} ADD more int")
    failed = pipeline.run(backfill="first")
    assert not failed.success
    assert materialized(failed) == {stage: [str(DAYS[0]), str(DAYS[2])] for stage in STAGES}
    before = {(stage, day): pipeline.manifest(stage, day) for stage in Stage for day in (DAYS[0], DAYS[2])}
    pipeline.drop_day(DAYS[1])
    for _ in sample.seed_day(pipeline.source, TYPE, DAYS[1], 0.001):
        pass
    result = pipeline.run(backfill="first")
    assert result.success, failure_of(result)
    assert materialized(result) == {stage: [str(day) for day in DAYS] for stage in STAGES}
    assert all(check.passed for check in checks(result))
    assert {(stage, day): pipeline.manifest(stage, day) for stage, day in before} == before
    assert pipeline.reconcile().differences == []


def test_new_backfill_ingests_anew(pipeline: Pipeline) -> None:
    """Another backfill, or a run of none, replaces every day."""
    versions = set()
    for backfill in ("first", "second", None):
        assert pipeline.run(DAYS[:1], backfill=backfill).success
        versions |= {pipeline.manifest(stage).version for stage in Stage}
    assert len(versions) == 9


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
    result = pipeline.run(DAYS[:1])
    assert result.success
    (warned,) = [check for check in checks(result) if not check.passed]
    assert (warned.asset_key.path[1], warned.severity.value) == ("parquet", "WARN")
    assert "'process' in 1 rows, e.g. \"gpu\"" in (warned.description or "")
    assert pipeline.manifest(Stage.PARQUET).total_rows == 251


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("POSTGRES_HOST", "127.0.0.1", "cannot connect to PostgreSQL at 127.0.0.1"),
        ("POSTGRES_PASS", "wrong", "password authentication failed"),
        ("LAKE_URI", "s3://no-such-bucket/x", "NoSuchBucket"),
        ("LAKE_URI", "", "LAKE_URI is not set"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file", "BigQuery, credentials: File /no/such/file was not found"),
    ],
)
def test_bad_settings(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    """A run says in one line what is wrong, and changes nothing."""
    monkeypatch.setenv(variable, value)
    if variable == "POSTGRES_HOST":
        monkeypatch.setenv("POSTGRES_PORT", "1")
    result = pipeline.run(DAYS[:1])
    assert not result.success
    assert message in failure_of(result)
    assert "\n" not in failure_of(result)
    assert materialized(result) == {stage: [] for stage in STAGES}


def test_no_secret_anywhere(pipeline: Pipeline, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither events nor logs nor manifests hold a password."""
    result = pipeline.run()
    output = "".join(capfd.readouterr())
    manifests = "".join(pipeline.manifest(stage, day).to_json() for stage in Stage for day in DAYS)
    events = "".join(repr(event) for event in result.all_events)
    for name in ("POSTGRES_PASS", "AWS_SECRET_ACCESS_KEY"):
        assert len(os.environ[name]) > 20
        assert os.environ[name] not in output + manifests + events


def test_reconciliation_names_what_is_off(pipeline: Pipeline) -> None:
    """A row deleted in BigQuery, objects deleted in the lake, a new table in the source, a name that is none."""
    assert pipeline.run().success
    table = pipeline.warehouse.table_id(TYPE)
    pipeline.warehouse.client.query(f"DELETE FROM `{table}` WHERE ds_nodash = '20191201' AND channel = 'esr'").result()
    (parquet,) = pipeline.object_keys(Stage.PARQUET, ".parquet", DAYS[1])
    (dump, *_) = pipeline.object_keys(Stage.RAW_DUMP, ".dat.gz", DAYS[2])
    for key in (parquet, dump):
        pipeline.lake.client.delete_object(Bucket="lake", Key=key)
    sample.create_table(pipeline.source, "build_id_esr_78_20191203")
    sample.insert(pipeline.source, "build_id_esr_78_20191203", sample.EDGE_ROWS)
    sample.create_table(pipeline.source, "build_id_nightly_73_20191201_old")
    report = pipeline.reconcile()
    text = "\n".join(report.differences)
    assert "build_id 20191201: 223 rows in BigQuery, 250 in the Parquet file" in text
    assert f"build_id 20191202: parquet/{'/'.join(parquet.split('/')[-3:])} is missing from the lake" in text
    assert f"build_id 20191203: raw_dump/{'/'.join(dump.split('/')[-3:])} is missing from the lake" in text
    assert "build_id 20191203: table build_id_esr_78_20191203 has 13 rows in the source, 0 in the dump" in text
    assert len(report.differences) == 4
    assert report.notes == ["build_id_nightly_73_20191201_old: not the name of an aggregate table"]


def test_reconciliation_runs_alone(pipeline: Pipeline) -> None:
    """The check can be run by itself, and fails where something differs."""
    from mozagg2bq_assets.definitions import defs

    assert pipeline.run().success
    pipeline.lake.client.delete_object(Bucket="lake", Key=pipeline.object_keys(Stage.PARQUET, ".parquet")[0])
    job = defs.resolve_implicit_global_asset_job_def()
    key = AssetKey([TYPE.value, "source_tables"])
    selected = job.get_subset(asset_selection=set(), asset_check_selection={_check_key(key)})
    with DagsterInstance.ephemeral() as instance:
        result = subset_result = selected.execute_in_process(instance=instance)
    assert subset_result.success
    (check,) = checks(result)
    assert not check.passed
    assert "build_id 20191201: parquet/20191201/" in str(check.description)


def _check_key(key: AssetKey):  # noqa: ANN202
    from dagster import AssetCheckKey

    return AssetCheckKey(key, "reconciliation")


def test_credentials_from_s3(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, user and password may come from a JSON object in S3."""
    names = ("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS")
    body = json.dumps({name: os.environ[name] for name in names})
    pipeline.lake.client.put_object(Bucket="lake", Key="credentials.json", Body=body.encode())
    monkeypatch.setenv("POSTGRES_CREDENTIALS_S3_URI", "s3://lake/credentials.json")
    for name in names:
        monkeypatch.delenv(name)
    assert pipeline.run(DAYS[:1]).success
    pipeline.lake.client.put_object(Bucket="lake", Key="credentials.json", Body=b'{"POSTGRES_PASS": "x"}')
    with pytest.raises(environment.UserError, match="is not a JSON object with POSTGRES_DB, POSTGRES_USER"):
        environment.postgres()
