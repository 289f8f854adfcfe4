"""The dashboard's questions, answered by BigQuery and by DuckDB, against the same sums done by PostgreSQL."""

import json
import random
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import LiteralString

import pytest
import sqlglot
from dagster import DagsterInstance
from sqlglot import expressions

from mozagg2bq_assets.bigquery.questions import FILTERS, Answer, Query, Question, read_sql
from mozagg2bq_assets.bigquery.views import ask, count_histograms, replace_view
from mozagg2bq_assets.defs.keys import BUCKETS, histograms_key
from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.model.columns import VIEW_COLUMNS
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.pipeline.questions import ask_lake
from mozagg2bq_assets_tests.helpers.cli import run
from mozagg2bq_assets_tests.helpers.runs import TYPE, Pipeline

# A day of each era, and one more of the last.
DAYS = [date(2015, 7, 1), date(2016, 9, 19), date(2017, 6, 15), date(2019, 12, 1), date(2019, 12, 2)]
LAST = DayRange(DAYS[-2], DAYS[-1] + timedelta(days=1))
CHOSEN = {"channel": "nightly", "version": "73", "metric": "GC_MS"}
BIGGEST = 2**63 - 1

# By date and label: how many rows, the sum, the count and the buckets, of histograms that are whole.
TOTALS: LiteralString = """
    WITH whole AS (
        SELECT dimensions->>'label' AS label, histogram, cardinality(histogram) AS length, ctid
        FROM {table}
        WHERE cardinality(histogram) >= 2 AND array_position(histogram, NULL) IS NULL
            AND dimensions->>'metric' = %(metric)s
            AND (%(os)s::text IS NULL OR dimensions->>'os' = %(os)s)
            AND (%(child)s::text IS NULL OR dimensions->>'child' = %(child)s)
            AND (%(label)s::text IS NULL OR dimensions->>'label' = %(label)s)
    ),
    buckets AS (
        SELECT label, array_agg(total ORDER BY n) AS buckets FROM (
            SELECT label, n, sum(value)::bigint AS total
            FROM whole, unnest(histogram[:length - 2]) WITH ORDINALITY AS element(value, n) GROUP BY label, n
        ) AS totals GROUP BY label
    )
    SELECT whole.label, count(*), sum(histogram[length - 1])::bigint, sum(histogram[length])::bigint,
        coalesce((SELECT buckets FROM buckets WHERE buckets.label IS NOT DISTINCT FROM whole.label), '{{}}')
    FROM whole GROUP BY whole.label
"""


@pytest.fixture
def loaded(empty_pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """Days of every era, loaded, with a view: histograms of unequal length, with NULLs, bigint's bounds, odd labels."""
    chance = random.Random(2015)  # noqa: S311
    for day in DAYS:
        name = table(day)
        sample.create_table(empty_pipeline.source, name, "id serial, " if day < sample.NO_ID else "")
        sample.insert(empty_pipeline.source, name, list(map(apart, sample.edge_rows(day))))
        sample.insert(empty_pipeline.source, name, [row(chance, day) for _ in range(150)])
    assert all(result.error is None for result in empty_pipeline.ingest(tmp_path, DAYS))
    replace_view(empty_pipeline.warehouse, TYPE)
    return empty_pipeline


def table(day: date) -> str:
    """The source table of a day."""
    return f"build_id_nightly_73_{day:%Y%m%d}"


def apart(row: sample.Row) -> sample.Row:
    """The row of bigint's bounds under a label of its own, or a total would be beyond them."""
    dimensions, histogram = row
    return ({**(dimensions or {}), "label": "bounds"}, histogram) if BIGGEST in (histogram or ()) else row


def row(chance: random.Random, day: date) -> sample.Row:
    """A row as the era of that day has them."""
    children = [True, False] if day < sample.CHILD_IS_TEXT else ["true", "false", "gpu"]
    dimensions: dict[str, object] = {
        **sample.FULL,
        "child": chance.choice(children),
        "label": chance.choice(["", "a", "naïve 日本語", "\\N"]),
        "metric": chance.choice(["GC_MS", "OTHER"]),
        "os": chance.choice(["Linux", "Darwin"]),
    }
    if day < sample.NO_E10S:
        dimensions["e10sEnabled"] = True
    values: list[int | None] = [chance.choice([0, 1, 17, BIGGEST // 500, -(2**63) // 500]) for _ in range(7)]
    histogram = values[: chance.randrange(8)]
    if histogram and chance.random() < 0.05:
        histogram[0] = None
    return dimensions, chance.choice([histogram] * 9 + [None])


def expected(pipeline: Pipeline, values: Mapping[str, str | None], days: DayRange, dated: bool) -> list[Answer]:
    """What PostgreSQL says."""
    names = ("label", "row_count", "sum", "count", "buckets")
    found: list[Answer] = []
    for day in days:
        query = TOTALS.format(table=table(day)).encode()
        for *others, buckets in pipeline.source.execute(query, {"os": None, "child": None, "label": None, **values}):
            answer = dict(zip(names, (*others, tuple(buckets)), strict=True))
            found.append({"date": day, **answer} if dated else answer)
    return found


def in_order(answers: list[Answer]) -> list[Answer]:
    """The order of labels is each engine's own."""
    return sorted(answers, key=repr)


def asked(pipeline: Pipeline, engine: str, query: Query, folder: Path) -> list[Answer]:
    """The engine's answer."""
    return ask(pipeline.warehouse, query) if engine == "bigquery" else ask_lake(pipeline.lake, query, folder)


@pytest.mark.parametrize("engine", ["bigquery", "duckdb"])
def test_distribution_and_evolution(loaded: Pipeline, engine: str, tmp_path: Path) -> None:
    """Both engines give what PostgreSQL gives, in every era and for every filter."""
    for day in DAYS:
        days = DayRange(day, day + timedelta(days=1))
        for more, meant in (
            ({}, {}),
            ({"os": "Linux"}, {}),
            ({"label": ""}, {}),
            ({"child": "parent"}, {"child": "false"}),
            ({"child": "content", "os": "Darwin"}, {"child": "true"}),
            ({"child": "gpu"}, {}),
        ):
            found = asked(loaded, engine, Query(Question.DISTRIBUTION, TYPE, days, {**CHOSEN, **more}), tmp_path)
            assert in_order(found) == in_order(expected(loaded, {**CHOSEN, **more, **meant}, days, dated=False))
            assert found or more == {"child": "gpu"}
    found = asked(loaded, engine, Query(Question.EVOLUTION, TYPE, LAST, CHOSEN), tmp_path)
    assert in_order(found) == in_order(expected(loaded, CHOSEN, LAST, dated=True))
    assert {answer["date"] for answer in found} == set(LAST)
    lengths = {len(answer["buckets"]) for answer in found}
    assert max(lengths) == 5


@pytest.mark.parametrize("engine", ["bigquery", "duckdb"])
def test_options(loaded: Pipeline, engine: str, tmp_path: Path) -> None:
    """Dates, channels, versions, metrics, and what each filter may be, each once."""
    found = asked(loaded, engine, Query(Question.OPTIONS, TYPE, LAST, {"channel": "nightly"}), tmp_path)
    options: dict[str, set[str]] = {}
    for answer in found:
        options.setdefault(answer["filter"], set()).add(answer["value"])
    assert sum(map(len, options.values())) == len(found)
    assert options["date"] == {str(day) for day in LAST}
    assert options["metric"] == {"GC_MS", "OTHER"}
    assert options["child"] == {"true", "false", "gpu"}
    assert options["os"] == {"Linux", "Darwin", "Windows_NT"}
    assert set(options) == {"date", "channel", "version", "metric", *FILTERS} - {"label"}
    assert asked(loaded, engine, Query(Question.OPTIONS, TYPE, LAST, {"channel": "beta"}), tmp_path) == []


@pytest.mark.parametrize("engine", ["bigquery", "duckdb"])
def test_beyond_64_bits(loaded: Pipeline, engine: str, tmp_path: Path) -> None:
    """A total beyond bigint is an error, as in the source, and no other number."""
    day = DAYS[-1]
    sample.insert(loaded.source, table(day), [(sample.FULL, [BIGGEST, 1, 1])] * 2)
    loaded.ingest(tmp_path, [day])
    query = Query(Question.EVOLUTION, TYPE, DayRange(day, day + timedelta(days=1)), {**CHOSEN, "os": "Windows_NT"})
    with pytest.raises(UserError, match="a total is beyond 64 bits: ask for fewer rows"):
        asked(loaded, engine, query, tmp_path)


def test_view(loaded: Pipeline) -> None:
    """It has the columns that the documentation says, and says how many rows have no histogram."""
    view = loaded.warehouse.client.get_table(loaded.warehouse.view_id(TYPE))
    # The emulator writes a view's names in small letters.
    expected_columns = [(column.name.lower(), column.bigquery_type) for column in VIEW_COLUMNS]
    assert [(field.name.lower(), field.field_type) for field in view.schema] == expected_columns
    found = count_histograms(loaded.warehouse, TYPE, LAST)
    whole = "cardinality(histogram) >= 2 AND array_position(histogram, NULL) IS NULL"
    query = f"SELECT count(*) FROM {{}} WHERE ({whole}) IS NOT TRUE"
    without = [loaded.source.execute(query.format(table(day)).encode()).fetchone() for day in LAST]
    assert found.rows == 2 * (150 + len(sample.EDGE_ROWS))
    assert found.without == sum(count for (count,) in filter(None, without)) > 0


def test_assets(loaded: Pipeline) -> None:
    """Dagster makes the view, and its check counts what has no histogram."""
    from mozagg2bq_assets.definitions import defs

    loaded.warehouse.query(TYPE, f"DROP VIEW `{loaded.warehouse.view_id(TYPE)}`", [])
    with DagsterInstance.ephemeral() as instance:
        job = defs().resolve_job_def("histograms_job")
        result = job.execute_in_process(instance=instance, asset_selection=[histograms_key(TYPE)])
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    counts = count_histograms(loaded.warehouse, TYPE, LAST)
    assert (check.check_name, check.passed) == (BUCKETS, False)
    assert " have no buckets: " in str(check.description)
    shown = check.metadata["rows_without_buckets"].value
    assert isinstance(shown, int)
    assert shown >= counts.without > 0


@pytest.mark.parametrize("question", [Question.DISTRIBUTION, Question.EVOLUTION])
def test_filters_that_bigquery_prunes_by(question: Question) -> None:
    """Partitions and clusters are asked for by conditions of their own, which hold whatever else is asked.

    They compare a bare column of the view, which is a bare column of the table, with a constant.
    """
    tree = sqlglot.parse_one(Query(question, TYPE, LAST, CHOSEN).sql("histograms"), read="bigquery")
    where = tree.find(expressions.Where)
    assert where is not None
    conditions = {condition.sql("bigquery") for condition in where.this.flatten()}
    assert {"date >= @start", "date < @end"} <= conditions
    assert {"channel = @channel", "version = @version", "metric = @metric"} <= conditions
    assert {
        "ds_nodash >= FORMAT_DATE('%Y%m%d', @start)",
        "ds_nodash < FORMAT_DATE('%Y%m%d', @end)",
    } <= conditions
    view = sqlglot.parse_one(read_sql("histograms").format(aggregates="t"), read="bigquery")
    bare = {column.name for column in view.expressions if isinstance(column, expressions.Column)}
    assert {"date", "ds_nodash", "channel", "version", "metric", *FILTERS} <= bare


def test_the_command(loaded: Pipeline) -> None:
    """Columns or JSON, from either engine; what is not there is said."""
    chosen = [part for name, value in CHOSEN.items() for part in (f"--{name}", value)]
    of_a_day = ("--aggregate-type", "build", "--date", str(DAYS[-1]))
    answers = {
        engine: json.loads(run("query", "distribution", *of_a_day, *chosen, "--engine", engine, "--json").stdout)
        for engine in ("bigquery", "duckdb")
    }
    assert in_order(answers["bigquery"]) == in_order(answers["duckdb"])
    assert len(answers["duckdb"]) >= 4
    shown = run("query", "evolution", *of_a_day, *chosen, "--label", "")
    assert shown.stdout.splitlines()[0].split() == ["date", "label", "row_count", "sum", "count", "buckets"]
    assert run("query", "options", *of_a_day, "--version", "1").stderr.startswith("no row matches")
    missing = run("query", "options", *of_a_day, "--engine", "duckdb", LAKE_URI="s3://lake/nothing")
    assert (missing.returncode, missing.stderr) == (
        1,
        "Error: the lake has no Parquet of build_id on these days: materialize them\n",
    )
    no_view = run("query", "options", "--aggregate-type", "submission", "--date", str(DAYS[-1]))
    assert "submission_date_histograms: materialize submission_date/histograms" in no_view.stderr
