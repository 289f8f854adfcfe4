"""Variables: what is missing or bad is said by name, all at once, and never with a value."""

import os

import pytest

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.parquet.converter import Engine
from mozagg2bq_assets.settings import (
    BigQuerySettings,
    LakeSettings,
    PostgresByObject,
    RunSettings,
    check_variables,
    read_postgres,
    read_services,
    variables,
)

ALWAYS = ["POSTGRES_HOST", "LAKE_URI", "BIGQUERY_PROJECT", "BIGQUERY_DATASET"]
CREDENTIALS = ["POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASS"]
BAD = {
    "POSTGRES_PORT": "70000",
    "POSTGRES_SSLMODE": "tls-please",
    "POSTGRES_SSLROOTCERT": "/no/such/file",
    "LAKE_URI": "gs://bucket/path",
    "LAKE_ENCRYPTION": "rot13",
    "BIGQUERY_DATASET": "a-b",
    "SPARK_ARCHIVE": "/no/such/archive",
    "TRANSFORM_ENGINE": "polars",
    "PARTITIONS_START": "2019-13-01",
    "PARTITIONS_PER_RUN": "0",
    "MAX_RUN_HOURS": "nan",
    "OUTAGE_PATIENCE_SECONDS": "-12345",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the project."""
    for name in variables():
        monkeypatch.delenv(name, raising=False)


def message(read: object) -> str:
    """What the reading of settings says is wrong."""
    assert callable(read)
    with pytest.raises(UserError) as raised:
        read()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable without a default is missing; so are empty ones."""
    monkeypatch.setenv("LAKE_URI", "")
    assert sorted(check_variables()) == sorted([*ALWAYS, *CREDENTIALS])
    assert message(read_postgres).startswith("POSTGRES_HOST is not set; POSTGRES_DB is not set; ")


def test_only_the_password_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in no message, and in nothing that a page shows."""
    monkeypatch.setenv("POSTGRES_PASS", "hunter2-but-longer")
    assert "POSTGRES_PASS" not in message(read_postgres)
    monkeypatch.setenv("POSTGRES_HOST", "somewhere")
    monkeypatch.setenv("POSTGRES_PORT", "many")
    said = [message(read_postgres), message(check_variables), str(PostgresByObject.texts())]
    monkeypatch.setenv("POSTGRES_PORT", "")
    monkeypatch.setenv("POSTGRES_DB", "db")
    monkeypatch.setenv("POSTGRES_USER", "me")
    said += [str(read_postgres()), repr(read_postgres())]
    assert "hunter2" not in "".join(said)


def test_bad_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are named in one message, without their values, and missing ones are not."""
    for name, value in BAD.items():
        monkeypatch.setenv(name, value)
    said = message(check_variables)
    for name, value in BAD.items():
        assert f"{name}: " in said
        assert value not in said or value == "0"
    assert "not set" not in said


@pytest.mark.parametrize(
    "uri", ["s3://lake//x", "s3://lake/x//y", "s3://lake/x//", "s3://lake/x/../y", "s3://lake/./x"]
)
def test_lake_whose_keys_a_store_may_change(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """Some stores collapse them, and a clean-up would then take our own objects for somebody else's."""
    monkeypatch.setenv("LAKE_URI", uri)
    assert "lead to other keys in some stores" in message(LakeSettings.read)


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that is given comes before the environment's; a day is written in two ways."""
    monkeypatch.setenv("PARTITIONS_START", "20191201")
    monkeypatch.setenv("PARTITIONS_PER_RUN", "7")
    settings = RunSettings.read()
    assert (str(settings.partitions_start), settings.partitions_per_run, settings.max_run_hours) == (
        "2019-12-01",
        7,
        24,
    )
    assert RunSettings.read(partitions_per_run="8", max_run_hours=None).partitions_per_run == 8
    monkeypatch.setenv("BIGQUERY_PROJECT", "project")
    monkeypatch.setenv("BIGQUERY_DATASET", "dataset")
    assert BigQuerySettings.read(dataset="other").dataset == "other"


def test_every_engine_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings name the engines by themselves, as they know nothing of Parquet."""
    for engine in Engine:
        monkeypatch.setenv("TRANSFORM_ENGINE", engine.value)
        assert Engine(RunSettings.read().engine) is engine


def test_all_services_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs all three says at once what is wrong with any."""
    monkeypatch.setenv("LAKE_URI", "nowhere")
    monkeypatch.setenv("POSTGRES_HOST", "somewhere")
    said = message(read_services)
    assert said.startswith(
        "POSTGRES_DB is not set; POSTGRES_USER is not set; POSTGRES_PASS is not set; BIGQUERY_PROJECT"
    )
    assert "LAKE_URI: not an S3 URI" in said


def test_credentials_in_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no other variable has to hold them."""
    monkeypatch.setenv("POSTGRES_HOST", "somewhere")
    monkeypatch.setenv("POSTGRES_CREDENTIALS_S3_URI", "s3://bucket/object.json")
    assert isinstance(read_postgres(), PostgresByObject)
    assert sorted(check_variables()) == sorted(ALWAYS[1:])


def test_every_variable_is_documented() -> None:
    """In `.env.example`; the page of configuration is made from the settings."""
    from mozagg2bq_assets.local.stack import ROOT

    text = (ROOT / ".env.example").read_text()
    assert [name for name in variables() if name not in text] == []


def test_the_stack_clears_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the project reaches the embedded stack's users from outside."""
    from mozagg2bq_assets.local.stack import isolated, shell_script

    for name in variables():
        monkeypatch.setenv(name, "from outside")
    assert "from outside" not in isolated({}).values()
    assert set(variables()) <= set(shell_script({}).replace("\n", " ").split())
    assert os.environ["LAKE_URI"] == "from outside"
