"""Days of a run through their stages, some at once: while one is converted, others go to S3 or BigQuery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.lake.manifest import Stage
from mozagg2bq_assets.pgdump.dump import DumpResult
from mozagg2bq_assets.stages import Day, Outcome

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from mozagg2bq_assets.transform.spark import Converted, SourceFile
    from mozagg2bq_assets.warehouse.bigquery import Warehouse

# One is converted at a time; one more on its way to the lake, and one to BigQuery, keep the machine busy.
DAYS_AT_ONCE = 3

Result: TypeAlias = Outcome | UserError | DataError


@contextmanager
def passing(
    days: Sequence[Day],
    stages: Sequence[Stage],
    dumps: Mapping[date, DumpResult],
    warehouse: "Warehouse | None",
    converted: "Mapping[date, Converted]" = MappingProxyType({}),
) -> Iterator[Iterator[tuple[Day, Mapping[Stage, Result]]]]:
    """Take days through some stages, a few at once; gives, day by day, what each stage did, or what stopped it there.

    Leaving the block waits for the days in flight and drops the others.
    """
    with ThreadPoolExecutor(DAYS_AT_ONCE) as pool:
        try:
            results = pool.map(
                lambda day: _pass(day, stages, dumps.get(day.day), warehouse, converted.get(day.day)), days
            )
            yield zip(days, results, strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def convert_on_spark(start: "Callable[[], SparkSession]", days: Sequence[Day], run_id: str) -> "dict[date, Converted]":
    """Convert the committed dumps of all those days in one Spark job. A day whose dump is damaged has its error.

    Spark is started where there is something to convert, and stopped: others may wait for its executors.
    """
    from mozagg2bq_assets.transform.spark import convert
    from mozagg2bq_assets.transform.storage import LakeStorage

    files: list[SourceFile] = []
    converted: dict[date, Converted] = {}
    for day in days:
        try:
            files += day.source_files()
        except DataError as error:
            converted[day.day] = error
        finally:
            day.close()
    if files:
        lake_uri = f"s3://{days[0].lake.bucket}/{days[0].lake.prefix}"
        with start() as session:
            converted |= convert(session, LakeStorage(lake_uri, run_id), files)
    return converted


def _pass(
    day: Day,
    stages: Sequence[Stage],
    dump: DumpResult | None,
    warehouse: "Warehouse | None",
    converted: "Converted | None",
) -> Mapping[Stage, Result]:
    steps: dict[Stage, Callable[[], Outcome]] = {
        Stage.RAW_DUMP: partial(day.store_dump, dump),
        Stage.PARQUET: partial(day.convert, converted),
    }
    if warehouse is not None:
        steps[Stage.BIGQUERY_TABLE] = partial(day.load, warehouse)
    results: dict[Stage, Result] = {}
    try:
        for stage in stages:
            results[stage] = steps[stage]()
    except (UserError, DataError) as error:
        results[stage] = error
    finally:
        day.close()
    return results
