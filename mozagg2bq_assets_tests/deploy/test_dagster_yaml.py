"""deploy/dagster.yaml on PostgreSQL and S3: it loads, and a run's events and logs are where it says."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dagster import DagsterInstance

from mozagg2bq_assets.definitions import defs
from mozagg2bq_assets.defs.keys import job_name
from mozagg2bq_assets.defs.partitions import range_tags
from mozagg2bq_assets.local.stack import Stack, isolated
from mozagg2bq_assets_tests.helpers.compose import composed
from mozagg2bq_assets_tests.helpers.runs import DAYS, TYPE, Pipeline

LOGS = "dagster-compute-logs"


@pytest.fixture
def instance(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """Dagster as compose.yaml's services see it."""
    with (
        TemporaryDirectory(prefix="deploy-") as folder,
        composed(stack, isolated(stack.environment()), Path(folder)) as compose,
    ):
        for name, value in compose.network.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DAGSTER_HOME", str(compose.home))
        for name in ("DAGSTER_POSTGRES_DB", "DAGSTER_POSTGRES_USER"):
            monkeypatch.setenv(name, compose.variables("code")[name])
        password = (compose.folder / "secrets" / "dagster_postgres_password").read_text().strip()
        monkeypatch.setenv("DAGSTER_POSTGRES_PASSWORD", password)
        monkeypatch.setenv("DAGSTER_LOGS_BUCKET", "lake")
        with DagsterInstance.get() as instance:
            yield instance


def test_instance(instance: DagsterInstance, pipeline: Pipeline) -> None:
    """A run: stored in PostgreSQL, and its log in the lake's bucket beside the lake."""
    result = defs().resolve_job_def(job_name(TYPE)).execute_in_process(instance=instance, tags=range_tags(DAYS))
    assert [run.run_id for run in instance.get_runs()] == [result.run_id]
    prefix = f"{LOGS}/storage/{result.run_id}/"
    listed = pipeline.lake.client.list_objects_v2(Bucket="lake", Prefix=prefix)["Contents"]
    (key,) = [found["Key"] for found in listed if found["Key"].endswith(".err")]
    log = pipeline.lake.client.get_object(Bucket="lake", Key=key)["Body"].read()
    assert b"STEP_SUCCESS" in log
    assert instance.run_retries_enabled
    assert instance.run_monitoring_enabled
