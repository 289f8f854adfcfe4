"""Compare what rows hold, and not their number alone: source, Parquet file and BigQuery, day by day."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from mozagg2bq_assets.errors import OperatorError
from mozagg2bq_assets.lake.manifest import DumpManifest, ParquetManifest, without_remedy
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.model.content import NOTHING, ContentSum, ContentSums
from mozagg2bq_assets.model.tables import SourceTable
from mozagg2bq_assets.parquet.reader import content_sums
from mozagg2bq_assets.postgres.tables import content_sum


@dataclass(frozen=True)
class ContentCheck:
    """Content sums of the three places; `in_bigquery` has those of all days, asked at once. Files go to `directory`."""

    connection: psycopg.Connection
    lake: Lake
    in_bigquery: Mapping[date, ContentSums]
    directory: Path

    def differences(self, tables: Iterable[str], dump: DumpManifest | None, parquet: ParquetManifest) -> Iterator[str]:
        """A line for each channel and version that differs between source and file, or file and BigQuery.

        Or the error of a file that cannot be read. `tables` are the source's.

        The source is asked only for a channel and version whose tables are the same as in the dump: others may have
        been dropped since.
        """
        try:
            in_file = self._in_file(parquet)
        except OperatorError as error:
            yield without_remedy(error)
            return
        if dump is not None:
            in_source = self._in_source(tables, dump)
            same = {name: found for name, found in in_file.items() if name in in_source}
            yield from _differing("source", in_source, "Parquet file", same)
        yield from _differing("Parquet file", in_file, "BigQuery", self.in_bigquery.get(parquet.day, {}))

    def _in_file(self, parquet: ParquetManifest) -> ContentSums:
        if not parquet.files:
            return {}
        with TemporaryDirectory(dir=self.directory) as folder:
            (path,) = self.lake.fetch(parquet, Path(folder))
            return content_sums(path)

    def _in_source(self, names: Iterable[str], dump: DumpManifest) -> ContentSums:
        """A transaction a table, so that locks do not pile up on the server."""
        sums: dict[str, ContentSum] = {}
        there, dumped = _by_channel(names), _by_channel(dump.rows)
        for name, tables in there.items():
            if tables == dumped.get(name):
                for table in tables:
                    found = content_sum(self.connection, table, dump.ingest_date)
                    self.connection.commit()
                    sums[name] = _added(sums.get(name, NOTHING), found)
        return sums


def _by_channel(names: Iterable[str]) -> dict[str, list[SourceTable]]:
    """Tables by `channel version`: there is more than one where build ids have a time."""
    tables: dict[str, list[SourceTable]] = {}
    for table in filter(None, map(SourceTable.parse, sorted(names))):
        tables.setdefault(f"{table.channel} {table.version}", []).append(table)
    return tables


def _added(one: ContentSum, other: ContentSum) -> ContentSum:
    return ContentSum(one.rows + other.rows, one.first + other.first, one.second + other.second)


def _differing(place: str, sums: ContentSums, other_place: str, others: ContentSums) -> Iterator[str]:
    for name in sorted(sums.keys() | others.keys()):
        one, other = sums.get(name, NOTHING), others.get(name, NOTHING)
        if one != other:
            yield f"rows of {name} are not the same in {place} ({one}) and {other_place} ({other})"
