"""`mozagg2bq query`: the dashboard's questions, answered by BigQuery's views or by DuckDB over the lake's Parquet."""

import json
from collections.abc import Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

import click

from mozagg2bq_assets.bigquery.questions import FILTERS, Answer, Query, Question
from mozagg2bq_assets.bigquery.views import ask
from mozagg2bq_assets.bigquery.warehouse import open_warehouse
from mozagg2bq_assets.cli.options import (
    Command,
    DayParameter,
    Decorator,
    days_options,
    debug_option,
    json_option,
    print_json,
    type_option,
)
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.questions import ask_lake
from mozagg2bq_assets.scratch import scratch_folder
from mozagg2bq_assets.settings import BigQuerySettings, LakeSettings


class Engine(StrEnum):
    """What answers."""

    BIGQUERY = "bigquery"
    DUCKDB = "duckdb"


engine_option = click.option(
    "--engine",
    type=click.Choice([engine.value for engine in Engine]),
    default=Engine.BIGQUERY.value,
    show_default=True,
    help="Ask BigQuery, or DuckDB over the Parquet files in the lake.",
)


def metric_options(command: Command) -> Command:
    """Add the options by which rows are chosen: channel, version and metric, and a filter for every other dimension."""
    options: list[Decorator] = [
        click.option("--channel", required=True, help="Take this channel, such as nightly."),
        click.option("--version", required=True, help="Take this version of Firefox, such as 73."),
        click.option("--metric", required=True, help="Take this metric; `options` lists them."),
        *(_filter_option(name) for name in FILTERS),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _filter_option(name: str) -> Decorator:
    more = " Take parent, content, true, false or gpu, for example." if name == "child" else ""
    flag = {"osVersion": "--os-version"}.get(name, f"--{name}")
    return click.option(flag, name, help=f"Take rows of this {name} alone.{more}")


@click.command()
@type_option(required=True)
@click.option("--date", "day", type=DayParameter(), required=True, help="Ask about this day.")
@metric_options
@engine_option
@json_option
@debug_option
def distribution(aggregate_type: AggregateType, day: date, engine: str, as_json: bool, **values: str | None) -> None:
    """Add up a metric's histograms on one date, by label.

    Buckets are added element by element. What each bucket stands for is not in the data: Firefox's definition of the
    metric says it.
    """
    days = DayRange(day, day + timedelta(days=1))
    _show(_answers(Query(Question.DISTRIBUTION, aggregate_type, days, values), engine), as_json)


@click.command()
@type_option(required=True)
@days_options(required=True)
@metric_options
@engine_option
@json_option
@debug_option
def evolution(aggregate_type: AggregateType, days: DayRange, engine: str, as_json: bool, **values: str | None) -> None:
    """Add up a metric's histograms on each of some dates, by label."""
    _show(_answers(Query(Question.EVOLUTION, aggregate_type, days, values), engine), as_json)


@click.command()
@type_option(required=True)
@days_options(required=True)
@click.option("--channel", help="Take rows of this channel alone.")
@click.option("--version", help="Take rows of this version alone.")
@engine_option
@json_option
@debug_option
def options(aggregate_type: AggregateType, days: DayRange, engine: str, as_json: bool, **values: str | None) -> None:
    """List the channels, versions, metrics and filters of some days."""
    _show(_answers(Query(Question.OPTIONS, aggregate_type, days, values), engine), as_json)


def _answers(query: Query, engine: str) -> Sequence[Answer]:
    if engine == Engine.BIGQUERY:
        return ask(open_warehouse(BigQuerySettings.read()), query)
    with scratch_folder() as folder:
        return ask_lake(Lake(LakeSettings.read()), query, folder)


def _show(answers: Sequence[Answer], as_json: bool) -> None:
    """As JSON, or as columns; a message where there are no rows."""
    if as_json:
        print_json(list(answers))
    elif not answers:
        click.echo("no row matches; `mozagg2bq query options` lists what there is", err=True)
    else:
        lines = [list(answers[0]), *([_text(value) for value in answer.values()] for answer in answers)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    """A value as a column shows it: an empty text as `""`, so that it is not taken for NULL."""
    if value is None:
        return "NULL"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, tuple | str) else str(value)
