"""Settings, a class for each service: the place that reads the environment for configuration.

(`to-parquet` reads TRANSFORM_ENGINE by itself, as it imports this only for Spark; `backfill` reads DAGSTER_URL, `spark`
SPARK_HOME and JAVA_HOME, and `cli.options` NO_COLOR.)
Every field names its variable. An empty variable counts as unset. One that has no default and is unset is an error, and
no error shows a value. Nothing is built here: who needs a service passes its settings to the package that knows it.
"""

import os
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, FilePath, SecretStr, ValidationError
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, SettingsConfigDict

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.model.partitions import parse_day

CREDENTIALS_URI = "POSTGRES_CREDENTIALS_S3_URI"


def _s3_uri(text: str) -> str:
    bucket, _, path = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise ValueError("not an S3 URI: write it as s3://bucket/path")
    # Some stores and proxies would write such a key in another way: what is listed would not be what was stored.
    if path and any(part in ("", ".", "..") for part in path.removesuffix("/").split("/")):
        raise ValueError("`//`, `/./` and `/../` lead to other keys in some stores: leave them out")
    return text


def _day(value: object) -> object:
    try:
        return parse_day(value) if isinstance(value, str) else value
    except UserError:
        raise ValueError("not a date: write it as 2019-12-01 or 20191201") from None


S3Uri: TypeAlias = Annotated[str, AfterValidator(_s3_uri)]
Day: TypeAlias = Annotated[date, BeforeValidator(_day)]


class Settings(BaseSettings):
    """What all classes of settings share."""

    model_config = SettingsConfigDict(
        case_sensitive=True,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    @classmethod
    def read(cls, **values: Any) -> Self:
        """Take the values that are given, and the environment's for those that are None or left out.

        Raises UserError, which names every variable that is missing or bad.
        """
        try:
            return cls(**{name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            raise UserError(_message(*_problems_of(error))) from None

    @classmethod
    def texts(cls) -> dict[str, Any]:
        """Every value that is set or has a default, as text, good or bad, without secrets: what a page may show."""
        texts = {}
        for name, field in cls.model_fields.items():
            default = "" if field.default in (PydanticUndefined, None) else str(field.default)
            text = os.environ.get(str(field.validation_alias)) or default
            if text and field.annotation not in (SecretStr, SecretStr | None):
                texts[name] = text
        return texts


class PostgresSettings(Settings):
    """Where the source is, and how a connection to it is secured."""

    host: str = Field(validation_alias="POSTGRES_HOST", description="The source's host, or a read-only replica's.")
    port: int = Field(5432, ge=1, le=65535, validation_alias="POSTGRES_PORT", description="Its port.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", validation_alias="POSTGRES_SSLMODE", description="How far TLS is asked for, in libpq's words."
    )
    sslrootcert: FilePath | None = Field(
        None, validation_alias="POSTGRES_SSLROOTCERT", description="A file with the certificates of the CA to trust."
    )


class PostgresByVariables(PostgresSettings):
    """The source, with its database and credentials in variables."""

    dbname: str = Field(validation_alias="POSTGRES_DB", description="The source's database.")
    user: str = Field(validation_alias="POSTGRES_USER", description="Who reads it.")
    password: SecretStr = Field(validation_alias="POSTGRES_PASS", description="The password.")


class PostgresByObject(PostgresSettings):
    """The source, with its database and credentials in an object in S3."""

    credentials_uri: S3Uri = Field(
        validation_alias=CREDENTIALS_URI,
        description="S3 object that holds a JSON object with POSTGRES_DB, POSTGRES_USER and POSTGRES_PASS.",
    )


class LakeSettings(Settings):
    """The lake. Credentials and endpoint are boto3's own: AWS_*."""

    uri: S3Uri = Field(validation_alias="LAKE_URI", description="Where the lake lies: s3://bucket/prefix.")
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        None,
        validation_alias="LAKE_ENCRYPTION",
        description="Server-side encryption of what is stored; by default the bucket's own.",
    )
    kms_key_id: str | None = Field(
        None, validation_alias="LAKE_KMS_KEY_ID", description="The key of KMS to encrypt with; by default AWS' own."
    )


class BigQuerySettings(Settings):
    """The tables. Credentials are the client's own: GOOGLE_*."""

    project: str = Field(validation_alias="BIGQUERY_PROJECT", description="The project that holds the dataset.")
    dataset: str = Field(
        validation_alias="BIGQUERY_DATASET",
        pattern=r"^\w+$",
        description="The dataset of the tables; it is made on first use.",
    )
    location: str | None = Field(
        None, validation_alias="BIGQUERY_LOCATION", description="Where the dataset is made; by default in the US."
    )
    emulator_host: str | None = Field(
        None,
        validation_alias="BIGQUERY_EMULATOR_HOST",
        description="The URL of an emulator in the place of the service, for tests; the client reads it by itself.",
    )


class SparkSettings(Settings):
    """The cluster, and the archive to send where the executors lack this package."""

    master: str = Field("local[*]", validation_alias="SPARK_MASTER", description="The cluster, as Spark names it.")
    archive: FilePath | None = Field(
        None,
        validation_alias="SPARK_ARCHIVE",
        description="The archive for executors that lack this package; `make spark-archive` makes it.",
    )


class RunSettings(Settings):
    """How runs are split, and their limits."""

    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", validation_alias="TRANSFORM_ENGINE", description="What turns dumps into Parquet."
    )
    partitions_start: Day = Field(
        date(2015, 6, 1), validation_alias="PARTITIONS_START", description="The first day of the partitions."
    )
    partitions_per_run: int = Field(
        10, ge=1, validation_alias="PARTITIONS_PER_RUN", description="Days that one run of a backfill takes."
    )
    max_run_hours: float = Field(
        24,
        gt=0,
        allow_inf_nan=False,
        validation_alias="MAX_RUN_HOURS",
        description="Hours after which a run no longer commits.",
    )
    outage_patience_seconds: float = Field(
        900,
        ge=0,
        allow_inf_nan=False,
        validation_alias="OUTAGE_PATIENCE_SECONDS",
        description="How many seconds a step may spend in pauses, in all, before it fails because a service is away or"
        " overloaded.",
    )
    dump_jobs: int = Field(
        2,
        ge=1,
        le=64,
        validation_alias="DUMP_JOBS",
        description="Connections by which pg_dump reads rows at once; a run has a few more.",
    )
    lake_versions: int = Field(
        2, ge=1, validation_alias="LAKE_VERSIONS", description="Versions of each stage and day that the lake keeps."
    )
    ingest_lag_days: int = Field(
        7,
        ge=1,
        validation_alias="INGEST_LAG_DAYS",
        description="How many days up to yesterday the daily schedule checks; it ingests those that are not loaded.",
    )
    source_grace_hours: float = Field(
        48,
        ge=0,
        allow_inf_nan=False,
        validation_alias="SOURCE_GRACE_HOURS",
        description="Hours after the end of a day during which a day without rows fails; later it counts as empty.",
    )
    days_in_flight: int = Field(
        16,
        ge=1,
        le=64,
        validation_alias="DAYS_IN_FLIGHT",
        description="Days of a run that are on their way to S3 at once, and as many to BigQuery.",
    )


class AlarmSettings(Settings):
    """Who is told when something needs a person."""

    webhook_url: SecretStr | None = Field(
        None,
        validation_alias="ALERT_WEBHOOK_URL",
        description="Where alarms are posted, as a JSON object with `text`, which Slack takes; by default nowhere.",
    )
    dagster_url: str = Field(
        "http://127.0.0.1:3000", validation_alias="DAGSTER_URL", description="The webserver, for links in alarms."
    )


ALL = (
    PostgresByVariables,
    PostgresByObject,
    LakeSettings,
    BigQuerySettings,
    SparkSettings,
    RunSettings,
    AlarmSettings,
)
_REMEDY = ": docs/configuration.md lists every variable; `make dev` needs none"


def read_postgres(**values: Any) -> PostgresByVariables | PostgresByObject:
    """Read the source's settings as `Settings.read` does; PostgresByObject where the URI of an object is set."""
    return _postgres_class(values.get("credentials_uri")).read(**values)


def read_services() -> tuple[PostgresByVariables | PostgresByObject, LakeSettings, BigQuerySettings]:
    """Read the settings of source, lake and BigQuery. Raises UserError, which names all that is missing or bad."""
    check_all(_postgres_class(), LakeSettings, BigQuerySettings)
    return read_postgres(), LakeSettings.read(), BigQuerySettings.read()


def check_all(*classes: type[Settings]) -> None:
    """Check several classes at once. Raises one UserError that names every variable that is missing or bad."""
    missing, bad = _problems(*classes)
    if missing or bad:
        raise UserError(_message(missing, bad))


def check_variables() -> list[str]:
    """The names of missing variables. Raises UserError, which names every variable that is bad."""
    missing, bad = _problems(_postgres_class(), *ALL[2:])
    if bad:
        raise UserError(_message([], bad))
    return missing


def variables() -> list[str]:
    """The names of all variables."""
    fields = [field for settings in ALL for field in settings.model_fields.values()]
    return list(dict.fromkeys(str(field.validation_alias) for field in fields))


def _postgres_class(credentials_uri: str | None = None) -> type[PostgresByVariables | PostgresByObject]:
    return PostgresByObject if credentials_uri or os.environ.get(CREDENTIALS_URI) else PostgresByVariables


def _problems(*classes: type[Settings]) -> tuple[list[str], list[str]]:
    """Variables of those classes that are missing, and what is wrong with bad ones."""
    missing: list[str] = []
    bad: list[str] = []
    for settings in classes:
        try:
            settings()
        except ValidationError as error:
            more_missing, more_bad = _problems_of(error)
            missing += more_missing
            bad += more_bad
    return missing, bad


def _message(missing: Sequence[str], bad: Sequence[str]) -> str:
    return "; ".join([*(f"{name} is not set" for name in missing), *bad]) + _REMEDY


def _problems_of(error: ValidationError) -> tuple[list[str], list[str]]:
    """Variables that are missing, and what is wrong with bad ones, by the error of one class."""
    missing: list[str] = []
    bad: list[str] = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0])
        if problem["type"] == "missing":
            missing.append(name)
        else:
            bad.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return missing, bad
