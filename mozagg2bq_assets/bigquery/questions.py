"""The questions of the Telemetry Dashboard and the Evolution Viewer, as SQL with parameters.

The SQL is BigQuery's, in the `.sql` files beside this one, over a type's view of histograms. `parquet.questions` asks
the same of a Parquet file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from importlib.resources import files
from typing import Any, TypeAlias

from mozagg2bq_assets.model.columns import DIMENSIONS
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType

# A row of an answer, by the names that its question's SQL gives.
Answer: TypeAlias = dict[str, Any]

# Filters that a question may leave out: every dimension but the metric, which is asked for.
FILTERS = tuple(name for name in DIMENSIONS if name != "metric")

# In the data the parent process is "false" and content is "true", from when it was a boolean. People may ask for the
# processes by name.
CHILDREN = {"parent": "false", "content": "true"}


class Question(StrEnum):
    """What is asked for, as its file is named."""

    DISTRIBUTION = "distribution"
    EVOLUTION = "evolution"
    OPTIONS = "options"


@dataclass(frozen=True)
class Query:
    """A question about some days of a type.

    `values` has what each of `channel`, `version`, `metric` and FILTERS has to be; one that is missing may be anything,
    but `distribution` and `evolution` find nothing without channel, version and metric.
    """

    question: Question
    aggregate_type: AggregateType
    days: DayRange
    values: Mapping[str, str | None]

    def sql(self, histograms: str) -> str:
        """The SQL, in BigQuery's dialect, over a view of that name."""
        text = read_sql(self.question).replace("{evolution}", read_sql(Question.EVOLUTION))
        return text.format(histograms=histograms)

    def parameters(self) -> dict[str, date | str | None]:
        """The SQL's parameters: strings, and two dates."""
        of_a_metric = () if self.question is Question.OPTIONS else ("metric", *FILTERS)
        names = ("channel", "version", *of_a_metric)
        values = {name: self.values.get(name) for name in names}
        if child := values.get("child"):
            values["child"] = CHILDREN.get(child, child)
        return {"start": self.days.start, "end": self.days.end, **values}


def read_sql(name: str) -> str:
    """The text of a `.sql` file of this folder."""
    return files(__package__).joinpath(f"{name}.sql").read_text()


def answers(names: list[str], rows: list[tuple[Any, ...]]) -> list[Answer]:
    """Rows by name. Buckets are a tuple, empty where there are none: DuckDB gives NULL, BigQuery never does."""
    return [
        {name: tuple(value or ()) if name == "buckets" else value for name, value in zip(names, row, strict=True)}
        for row in rows
    ]
