"""A real `dagster dev` on a stack of a test's own, and backfills of many small days on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import Stack, isolated
from mozagg2bq_assets.model.partitions import DayRange
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets_tests.helpers.dagster import LOG, dagster_dev

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Backfills:
    """The stack, the environment of commands, where the webserver is, and the process of `dagster dev`."""

    stack: Stack
    environment: dict[str, str]
    url: str
    dagster: psutil.Process

    @property
    def temporary(self) -> Path:
        """Where Dagster, its runs and commands have their temporary files; nobody else has."""
        return Path(self.environment["TMPDIR"])

    @property
    def log(self) -> str:
        """What Dagster has said."""
        return (self.stack.state_dir / LOG).read_text()

    def start(self, days: DayRange) -> subprocess.Popen[str]:
        """`mozagg2bq backfill` of these days of both types."""
        arguments = ("backfill", "--start", str(days.start), "--end", str(days.end), "--url", self.url)
        return subprocess.Popen(
            (str(BIN / "mozagg2bq"), *arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def verify(self, days: DayRange) -> subprocess.CompletedProcess[str]:
        """`mozagg2bq verify --content` of these days."""
        arguments = ("verify", "--content", "--start", str(days.start), "--end", str(days.end))
        command = (str(BIN / "mozagg2bq"), *arguments)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def loaded(self) -> int:
        """Manifests of loads in the lake."""
        folder = self.stack.state_dir / "s3" / "lake" / "mozagg2bq" / "bigquery_table"
        return sum(1 for _ in folder.glob("*/*/manifest.json"))

    def processes(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """Those of Dagster that stay, and those of runs."""
        stay, runs = [self.dagster], list[psutil.Process]()
        for process in self.dagster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # or a zombie
                (runs if "spawn_main" in " ".join(process.cmdline()) else stay).append(process)
        return stay, runs


@contextmanager
def backfills(days: DayRange, partitions_per_run: int) -> Iterator[Backfills]:
    """These days of both types in the source, a table of all edge cases each, and a webserver with its daemon."""
    with TemporaryDirectory(prefix="backfills-") as name:
        stack = Stack(Path(name))
        environment = isolated(stack.up()) | {
            "PARTITIONS_START": str(days.start),
            "PARTITIONS_PER_RUN": str(partitions_per_run),
            "TMPDIR": str(Path(name, "tmp")),
        }
        os.mkdir(environment["TMPDIR"])
        try:
            with stack.administrator() as connection:
                sample.create_update_dates(connection)
                for aggregate_type in AggregateType:
                    for day in days:
                        table = f"{aggregate_type}_nightly_73_{day:%Y%m%d}"
                        sample.create_table(connection, table)
                        sample.insert(connection, table, sample.EDGE_ROWS)
            with dagster_dev(Path(name), environment) as (url, pid):
                yield Backfills(stack, environment, url, psutil.Process(pid))
        finally:
            stack.down()
