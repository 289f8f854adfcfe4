"""Every row exactly as PostgreSQL holds it: generated rows go through dump, transform and load, and are compared with
what PostgreSQL itself says of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.model.columns import DIMENSIONS
from mozagg2bq_assets.model.counts import UnmappedKey
from mozagg2bq_assets.model.partitions import Partition
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.converter import DuckDBConverter
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.helpers.engines import Engine, convert, dump, make_parquet, spark_engine
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY, TODAY, Row, expected_rows, fill, parquet_rows

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DAYS_PER_EXAMPLE = 10
SUBMISSION = Partition(AggregateType.SUBMISSION_DATE, FIRST_DAY)
BUILD = Partition(AggregateType.BUILD_ID, FIRST_DAY)

NASTY = (
    *("", "\\", "\\\\", '"', '\\"', "\\N", "\\.", "\\\\.", "\\t", "a\\", "\t", "\n", "\r\n", "\b\f\x01\x1f\x7f\x85"),
    *("{", "}", "{}", '": 5', '", "os": "x', '": n', "null", "true", "NULL", "1.10", "a=b", " "),
    *("\u2028", "\ufeff", "🦊", "e\u0301"),
)
TEXT = st.sampled_from(NASTY) | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
STRINGS = TEXT.map(json.dumps)
VALUES = st.recursive(
    STRINGS | NUMBERS | st.sampled_from(("1.10", "-0.0", "1e5", "true", "false", "null", "[]", "{}")),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(STRINGS, inner), max_size=3).map(lambda members: object_text(members))
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(DIMENSIONS)


def object_text(members: Sequence[tuple[str, str]]) -> str:
    """JSON text of an object from JSON texts of its keys and values."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in members) + "}"


FULL = st.tuples(*(STRINGS for _ in DIMENSIONS)).map(
    lambda values: object_text([(json.dumps(key), value) for key, value in zip(DIMENSIONS, values, strict=True)])
)
SOME = st.lists(st.tuples(KEYS.map(json.dumps), STRINGS), max_size=8).map(object_text)
ODD = st.lists(st.tuples(KEYS.map(json.dumps) | STRINGS, VALUES), max_size=9).map(object_text)

# What the source wrote until 2017-02, until 2018-03, and what it may have written: any of the keys, each with a scalar.
BOOLEANS = st.sampled_from(("true", "false"))
ERA_KEYS = (*DIMENSIONS, "e10sEnabled")


def era(**others: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects with all keys of an era: strings, where nothing else is said."""
    values = [others.get(key, STRINGS) for key in ERA_KEYS]
    return st.tuples(*values).map(
        lambda drawn: object_text([(json.dumps(key), value) for key, value in zip(ERA_KEYS, drawn, strict=True)])
    )


OLD = era(child=BOOLEANS, e10sEnabled=BOOLEANS) | era(e10sEnabled=BOOLEANS)
SCALARS = STRINGS | BOOLEANS | st.just("null") | st.integers(-(10**6), 10**6).map(str) | NUMBERS
SHAPED = st.dictionaries(
    st.sampled_from((*ERA_KEYS, "process", "OS", "a-b.c:d", "k", "'", "é")), SCALARS, max_size=9
).map(lambda drawn: object_text([(json.dumps(key), value) for key, value in drawn.items()]))
OBJECTS = st.none() | FULL | SOME | ODD | VALUES | OLD | SHAPED

BIGINT = st.integers(-(2**63), 2**63 - 1)
ELEMENTS = st.none() | BIGINT | st.sampled_from((0, 2**63 - 1, -(2**63)))


def array_text(elements: Sequence[int | None]) -> str:
    """PostgreSQL's text of a bigint[]."""
    return "{" + ",".join("NULL" if element is None else str(element) for element in elements) + "}"


ARRAYS = (
    st.none()
    | st.lists(ELEMENTS, max_size=12).map(array_text)
    | st.tuples(st.lists(ELEMENTS, min_size=1, max_size=4), st.integers(-9, 9)).map(
        lambda drawn: f"[{drawn[1]}:{drawn[1] + len(drawn[0]) - 1}]={array_text(drawn[0])}"
    )
    | st.lists(st.lists(BIGINT, min_size=2, max_size=2).map(array_text), min_size=1, max_size=3).map(
        lambda rows: "{" + ",".join(rows) + "}"
    )
)


ROWS = st.builds(Row, OBJECTS, ARRAYS)
# Tables of a day by channel, version and what stands behind the date.
NAMES = st.sampled_from(("nightly_73", "beta_1", "nightly_cck_73", "a_b_c_0", "esr_68"))
TIMES = st.sampled_from(("", "103045", "235959"))
TABLES = st.dictionaries(st.tuples(NAMES, TIMES), st.lists(ROWS, max_size=6), max_size=4)
Days: TypeAlias = list[dict[tuple[str, str], list[Row]]]
# Fewer in CI: the same code reads the rows there, and Spark takes longer.
ON_SPARK = settings().max_examples if settings().max_examples == 500 else 5
GENERATED_DAYS = st.lists(TABLES, min_size=DAYS_PER_EXAMPLE, max_size=DAYS_PER_EXAMPLE)


@pytest.mark.stress
@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(days=GENERATED_DAYS)
def test_generated_days(administrator: psycopg.Connection, source: Postgres, days: Days) -> None:
    """Whatever rows hold, the Parquet file has the multiset that PostgreSQL has."""
    check_days(administrator, source, DuckDBConverter, days)


@pytest.mark.stress
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=ON_SPARK)
@given(days=GENERATED_DAYS)
def test_generated_days_on_spark(
    administrator: psycopg.Connection, source: Postgres, small_tasks: None, spark: "SparkSession", days: Days
) -> None:
    """So it has there."""
    check_days(administrator, source, spark_engine(spark), days)


def check_days(administrator: psycopg.Connection, source: Postgres, engine: Engine, days: Days) -> None:
    """Make the days in the source, convert them, and compare their rows."""
    partitions = [Partition(AggregateType.BUILD_ID, FIRST_DAY + timedelta(days=n)) for n in range(len(days))]
    tables_of = {
        partition: {f"build_id_{name}_{partition.ds_nodash}{time}": rows for (name, time), rows in tables.items()}
        for partition, tables in zip(partitions, days, strict=True)
    }
    administrator.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
    with administrator.transaction():
        for tables in tables_of.values():
            for name, rows in tables.items():
                fill(administrator, name, rows)
    with TemporaryDirectory() as folder:
        files = convert(source, partitions, Path(folder), engine)
        assert files.keys() == {partition.day for partition, tables in tables_of.items() if tables}
        for partition, tables in tables_of.items():
            if tables:
                assert parquet_rows(files[partition.day].path) == expected_rows(administrator, list(tables))


LARGE = {
    "label of 1.5 MB": Row(json.dumps({"label": '\\"é' * 400_000, "os": "x"}), "{1}"),
    "label of 20 MB": Row(json.dumps({"label": "x" * 20_000_000}), "{1}"),
    "array of 50,000": Row("{}", array_text(list(range(50_000)))),
    "array of 50,000 with NULL": Row("{}", array_text([None, *range(50_000)])),
    "nested 3,000 deep": Row('{"os": ' + "[" * 3_000 + "]" * 3_000 + "}", "{1}"),
    "number of 100,000 digits": Row('{"os": ' + "9" * 100_000 + "}", "{1}"),
}


@pytest.mark.parametrize("row", LARGE.values(), ids=LARGE)
def test_large_values(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine, row: Row
) -> None:
    """Values far larger than usual come through, beside ordinary ones."""
    name = f"submission_date_nightly_73_{BUILD.ds_nodash}"
    fill(administrator, name, [Row('{"os": "Linux"}', "{1,2}"), row, row])
    files = convert(source, [SUBMISSION], tmp_path, engine)
    assert parquet_rows(files[FIRST_DAY].path) == expected_rows(administrator, [name])


def test_hundreds_of_tables(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine
) -> None:
    """A day of more tables than a real one has, some of them empty."""
    names = [f"submission_date_beta_{n}_{BUILD.ds_nodash}" for n in range(200)]
    with administrator.transaction():
        for n, name in enumerate(names):
            fill(administrator, name, [Row('{"os": "Linux", "child": "true"}', "{1,2}")] * (n % 3))
    files = convert(source, [SUBMISSION], tmp_path, engine)
    assert parquet_rows(files[FIRST_DAY].path) == expected_rows(administrator, names)


def test_only_empty_tables(administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine) -> None:
    """A day whose tables have no rows makes a file without rows."""
    names = [f"submission_date_beta_{n}_{BUILD.ds_nodash}" for n in range(2)]
    for name in names:
        fill(administrator, name, [])
    files = convert(source, [SUBMISSION], tmp_path, engine)
    assert parquet_rows(files[FIRST_DAY].path) == Counter()


def test_unmapped_keys(administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine) -> None:
    """Keys without a column are counted, with an example."""
    rows = [Row('{"os": "x", "process": "gpu"}', "{1}")] * 3 + [Row('{"n": 1.10}', "{1}"), Row('{"os": "x"}', "{1}")]
    fill(administrator, f"build_id_nightly_73_{BUILD.ds_nodash}", rows)
    file = convert(source, [BUILD], tmp_path, engine)[FIRST_DAY]
    assert file.unmapped == {"process": UnmappedKey(3, '"gpu"'), "n": UnmappedKey(1, "1.10")}
    assert "'process' in 3 rows" in (file.unmapped.warning() or "")


EXPECTED = Row('{"os": "x", "e10sEnabled": true}', "{1}")


def test_expected_key(administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine) -> None:
    """What the source wrote for years is counted, and no warning."""
    fill(administrator, f"build_id_nightly_73_{BUILD.ds_nodash}", [EXPECTED] * 3)
    file = convert(source, [BUILD], tmp_path, engine)[FIRST_DAY]
    assert file.unmapped == {"e10sEnabled": UnmappedKey(3, "true")}
    assert file.unmapped.warning() is None


@pytest.mark.parametrize("first", [0, 100, 3000])
def test_shapes_that_come_late(
    administrator: psycopg.Connection,
    source: Postgres,
    tmp_path: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    first: int,
) -> None:
    """Rows of shapes that the first rows do not have are learned on the way, whatever their keys; all are counted."""
    monkeypatch.setattr("mozagg2bq_assets.parquet.exact.MANY_ROWS", 50)
    child = ("true", "1", "null")
    late = [
        Row(f'{{"os": "{n}", "label": "x\\\\y", "child": {child[n % 3]}, "process{n % 5}": {n}}}', "{1}")
        for n in range(300)
    ]
    name = f"build_id_nightly_73_{BUILD.ds_nodash}"
    usual = Row(object_text([(json.dumps(key), '"x"') for key in DIMENSIONS]), "{1,2}")
    fill(administrator, name, [usual] * first + late)
    file = convert(source, [BUILD], tmp_path, engine)[FIRST_DAY]
    assert parquet_rows(file.path) == expected_rows(administrator, [name])
    assert {key: found.rows for key, found in file.unmapped.items()} == {f"process{n}": 60 for n in range(5)}


@pytest.mark.parametrize(
    "columns",
    [
        "id serial, dimensions jsonb, histogram bigint[]",
        "histogram bigint[], note text DEFAULT E'a\\tb', dimensions jsonb",
        '"odd ""name, x" int, dimensions jsonb, twice int GENERATED ALWAYS AS (1 * 2) STORED, histogram bigint[]',
    ],
)
def test_more_columns(
    administrator: psycopg.Connection, source: Postgres, tmp_path: Path, engine: Engine, columns: str
) -> None:
    """They are left out and named, in a table beside others; the two are found wherever they stand."""
    plain, odd = (f"build_id_{channel}_73_{BUILD.ds_nodash}" for channel in ("beta", "nightly"))
    rows = [EXPECTED, Row('{"label": "tab\\t"}', "{NULL,1}"), Row(None, None)]
    fill(administrator, plain, rows)
    administrator.execute(f"CREATE TABLE {odd} ({columns})".encode())
    administrator.execute(f"INSERT INTO {odd} (dimensions, histogram) SELECT * FROM {plain}".encode())
    (found,) = dump(source, [BUILD], tmp_path).values()
    assert len(found.archive.left_out) == 1
    (file,) = make_parquet(engine, [replace(found.archive, created=TODAY)], tmp_path).values()
    assert parquet_rows(file.path) == expected_rows(administrator, [plain, odd])


def test_rows_in_bigquery(
    administrator: psycopg.Connection, source: Postgres, warehouse: Warehouse, tmp_path: Path, engine: Engine
) -> None:
    """The partition holds the very rows, through the load job."""
    name = f"build_id_nightly_73_{BUILD.ds_nodash}"
    texts = [object_text([('"label"', json.dumps(text))]) for text in NASTY]
    fill(administrator, name, [Row(text, array) for text in texts for array in (None, "{}", "{NULL,1}", "{1,2}")])
    file = convert(source, [BUILD], tmp_path, engine)[FIRST_DAY]
    warehouse.load(BUILD, file.path, f"job-{uuid4()}")
    query = f"SELECT * FROM `{warehouse.table_id(AggregateType.BUILD_ID)}` WHERE _PARTITIONDATE = '{FIRST_DAY}'"
    assert Counter(row.values() for row in warehouse.client.query(query).result()) == expected_rows(
        administrator, [name]
    )
