"""What an operator reads first when something is red: the cause in one line, and what to do."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from mozagg2bq_assets.defs.assets import AGAIN
from mozagg2bq_assets.lake.manifest import ParquetManifest
from mozagg2bq_assets.model.counts import ChannelCounts
from mozagg2bq_assets.model.partitions import Partition, Stage, remedy
from mozagg2bq_assets_tests.defs.test_assets import SECOND, one
from mozagg2bq_assets_tests.helpers.runs import TYPE, Pipeline, checks, failure_of

AWAY = "127.0.0.1:1"


def lose_parquet(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second day."""
    pipeline.lake.delete(pipeline.object_keys(Stage.PARQUET, ".parquet", SECOND))


def damage_dump(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second day."""
    pipeline.flip_bit(Stage.RAW_DUMP, ".dat.gz", SECOND)


def add_to_manifest(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that is not in the file, on the second day."""
    manifest = pipeline.manifest(ParquetManifest, SECOND)
    rows = ChannelCounts({name: rows + (name == "nightly 73") for name, rows in manifest.rows.items()})
    pipeline.lake.publish(manifest.model_copy(update={"rows": rows}))


def shrink(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second day, in the source."""
    pipeline.source.execute(f"DELETE FROM build_id_nightly_73_{SECOND:%Y%m%d} WHERE dimensions IS NULL".encode())


def away(name: str, value: str) -> Callable[[Pipeline, pytest.MonkeyPatch], None]:
    """A service that nobody listens for."""
    return lambda _, monkeypatch: monkeypatch.setenv(name, value)


class Fault(NamedTuple):
    """What goes wrong, the stages that are run then, the cause that is said, and what each red check says to do."""

    make: Callable[[Pipeline, pytest.MonkeyPatch], None]
    stages: tuple[Stage, ...]
    cause: str
    red: Mapping[Stage, str]


AGAIN_BY_STAGE = {stage: f"; when that is mended, {remedy(Partition(TYPE, SECOND), stage)}" for stage in Stage}
MAKE_DUMP = f": materialize build_id/raw_dump of {SECOND}, then parquet and bigquery_table"
MAKE_PARQUET = f": materialize build_id/parquet of {SECOND}, then bigquery_table"
FAULTS = {
    "an object is missing": Fault(
        lose_parquet,
        (Stage.BIGQUERY_TABLE,),
        r"s3://lake/\S+/aggregates.parquet: missing, though its manifest names it",
        dict.fromkeys((Stage.PARQUET, Stage.BIGQUERY_TABLE), MAKE_PARQUET),
    ),
    "an object is damaged": Fault(
        damage_dump,
        (Stage.PARQUET, Stage.BIGQUERY_TABLE),
        r"s3://lake/\S+\.dat\.gz: damaged, not as its manifest says",
        dict.fromkeys((Stage.RAW_DUMP, Stage.PARQUET), MAKE_DUMP),
    ),
    "a count differs": Fault(
        add_to_manifest,
        (Stage.BIGQUERY_TABLE,),
        r"/\S+/aggregates.parquet: nightly 73 should have 65 rows and has 64",
        {Stage.BIGQUERY_TABLE: AGAIN_BY_STAGE[Stage.BIGQUERY_TABLE]},
    ),
    "the day has shrunk": Fault(
        shrink,
        tuple(Stage),
        r"held back, as the day has shrunk: build_id_nightly_73_20191202 had 64 rows and has 63",
        {Stage.RAW_DUMP: "to store the day as it is in the source now, run it with accept_shrink in the run's config"},
    ),
    "S3 is away": Fault(
        away("AWS_ENDPOINT_URL", f"http://{AWAY}"), tuple(Stage), "S3, bucket lake, is away or overloaded", {}
    ),
    "PostgreSQL is away": Fault(
        away("POSTGRES_HOST", "/nowhere"), tuple(Stage), "cannot connect to PostgreSQL at /nowhere:5432", {}
    ),
    "BigQuery is away": Fault(
        away("BIGQUERY_EMULATOR_HOST", f"http://{AWAY}"),
        tuple(Stage),
        rf"BigQuery, \S+, is away or overloaded: .* refused, at {AWAY}: check BIGQUERY_EMULATOR_HOST",
        {Stage.BIGQUERY_TABLE: AGAIN_BY_STAGE[Stage.BIGQUERY_TABLE]},
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_cause_and_remedy(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The failed run begins with the cause and ends with what to do, and so does each red check."""
    assert pipeline.run(one(SECOND)).success
    fault = FAULTS[kind]
    fault.make(pipeline, monkeypatch)
    result = pipeline.run(one(SECOND), fault.stages)
    said = failure_of(result)
    assert re.match(fault.cause, said)
    assert said.endswith(AGAIN)
    red = {check.asset_key.path[1]: str(check.description) for check in checks(result) if not check.passed}
    assert red.keys() == fault.red.keys()
    for stage, text in red.items():
        assert re.match(fault.cause, text)
        assert text.endswith(fault.red[Stage(stage)])
