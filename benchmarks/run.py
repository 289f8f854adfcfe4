"""`make bench`: the figures of docs/performance.md, side by side. Takes an hour.

`make bench SECTION=eras` is that part alone. Any works alone but `ten_days`, which needs `one_day` before it, and
`on_cluster`, which needs both: measure these by running all.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import psutil
import requests
from dagster import DagsterInstance

from benchmarks.loopback import listening
from benchmarks.measure import Measured, alternately, run, tool, usage
from benchmarks.source import (
    ERAS,
    FIRST_DAY,
    FIRST_EMPTY_DAY,
    FIRST_SMALL_DAY,
    SMALL_DAYS,
    STACK,
    days,
    prepare,
    prepare_eras,
)
from mozagg2bq_assets.cli.dagster_client import DagsterClient
from mozagg2bq_assets.local.spark import ADDRESS, cluster
from mozagg2bq_assets.local.stack import ROOT, running_stack
from mozagg2bq_assets.model.partitions import Partition, Stage, ds_nodash
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.pipeline.source import open_source
from mozagg2bq_assets.postgres.dump import Dumper
from mozagg2bq_assets.settings import read_postgres

RUNS = 3
TEN = 10
TWO_STAGES = (Stage.RAW_DUMP, Stage.PARQUET)
URL = "http://127.0.0.1:3017"
SUBMISSION, BUILD = AggregateType
EMPTY_LOCATION = "import dagster, dagster_aws.s3, google.cloud.bigquery\ndefs = dagster.Definitions()\n"


def main(section: str = "") -> None:
    """Run all sections, or one. Exits for a name that is none."""
    sections = (start, catalog, one_day, eras, instead, ten_days, latencies, memory, on_cluster)
    chosen = [each for each in sections if section in ("", each.__name__)]
    if not chosen:
        sys.exit(f"no section {section!r}: {', '.join(each.__name__ for each in sections)}")
    with running_stack(STACK), TemporaryDirectory() as name:
        del os.environ["PARTITIONS_START"]  # the stack's is that of its sample days
        with STACK.administrator() as connection:
            for line in prepare_eras(connection) if chosen in ([eras], [instead]) else prepare(connection):
                note(line)
        os.environ.update(open_source(read_postgres()).environment())
        folder = Path(name)
        print("| what | ours | compared with | | ratio |\n|---|---|---|---|---|")
        for measure in chosen:
            for row in measure(folder):
                print(f"| {' | '.join(row)} |", flush=True)


def one_day(folder: Path) -> Iterator[Sequence[str]]:
    """A day of each type, dumped and converted, against the predecessor's way and the floors."""
    for kind in (SUBMISSION, BUILD):
        dumps = alternately(
            {
                "ours": partial(dump, folder / "ours", kind),
                "predecessor": partial(predecessor_dump, folder / "theirs", kind),
                "COPY": partial(python, "benchmarks.floors", "copy", kind, str(FIRST_DAY)),
            },
            RUNS,
        )
        yield compare(f"dump of a day, {kind}", dumps["ours"], "pg_dump, its defaults", dumps["predecessor"])
        yield compare("", dumps["ours"], "COPY to nowhere, 2 connections", dumps["COPY"])
        day = str(folder / "ours" / kind / ds_nodash(FIRST_DAY))
        parquet = alternately(
            {
                "ours": partial(
                    run, (tool("mozagg2bq"), "to-parquet", "--input-dir", day, "--output-dir", str(folder / "parquet"))
                ),
                "predecessor": partial(python, "benchmarks.predecessor", day, str(folder / "spark")),
                "ISA-L": partial(python, "benchmarks.floors", "decompress", day),
            },
            RUNS,
        )
        yield compare(f"`to-parquet` of a day, {kind}", parquet["ours"], "Spark job", parquet["predecessor"])
        yield compare("", parquet["ours"], "decompression with ISA-L", parquet["ISA-L"])
        BASELINE[kind] = dumps["predecessor"].seconds + parquet["predecessor"].seconds


def eras(folder: Path) -> Iterator[Sequence[str]]:
    """A full day of each era, and one of twenty shapes mixed; compares the CPU time of each with that of the first."""
    first = 0.0
    for era, day in ERAS.items():
        dump(folder / "ours", SUBMISSION, day)
        archive = str(folder / "ours" / SUBMISSION / ds_nodash(day))
        command = (tool("mozagg2bq"), "to-parquet", "--input-dir", archive, "--output-dir", str(folder / "parquet"))
        theirs = partial(python, "benchmarks.predecessor", archive, str(folder / "spark"))
        found = alternately({"ours": partial(run, command), "theirs": theirs}, RUNS)
        cpu = found["ours"].cpu_seconds
        first = first or cpu
        yield compare(f"`to-parquet` of a full day, {era}", found["ours"], "Spark job", found["theirs"])
        yield "its CPU time", f"{cpu:.2f} s", "that of 2019", f"{first:.2f} s", ratio(cpu, first)
        if day != FIRST_DAY:  # which later sections use
            shutil.rmtree(archive)


def instead(folder: Path) -> Iterator[Sequence[str]]:
    """Dump and `to-parquet` of a day, against dlt with connectorx, which knows no Unix sockets: all by loopback."""
    before = dict(os.environ)
    with listening(STACK.postgres) as port:
        try:
            os.environ.update(POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=str(port), PGHOST="127.0.0.1", PGPORT=str(port))
            works = {
                mode: partial(
                    run, (DLT_PYTHON, "-m", "benchmarks.dlt_export", str(FIRST_DAY), str(folder / "dlt"), mode)
                )
                for mode in ("alone", "parallel")
            }
            found = alternately({"ours": partial(dump_and_convert, folder / "ours"), **works}, RUNS)
        finally:
            os.environ.update(before)
    yield compare("dump and `to-parquet`", found["ours"], "dlt and connectorx, a table at a time", found["alone"])
    yield compare("", found["ours"], "the same, tables in parallel", found["parallel"])


def dump_and_convert(folder: Path) -> Measured:
    """Both of our commands for a full day, one after the other."""
    first = dump(folder, SUBMISSION)
    archive = str(folder / SUBMISSION / ds_nodash(FIRST_DAY))
    command = (tool("mozagg2bq"), "to-parquet", "--input-dir", archive, "--output-dir", str(folder / "parquet"))
    second = run(command)
    return Measured(
        first.seconds + second.seconds,
        max(first.peak_bytes, second.peak_bytes),
        first.cpu_seconds + second.cpu_seconds,
    )


DLT_PYTHON = str(ROOT / ".venv-dlt" / "bin" / "python")
BASELINE: dict[AggregateType, float] = {}


def catalog(folder: Path) -> Iterator[Sequence[str]]:
    """What dumping costs whatever is in the tables: empty ones, 100 a day."""
    dumps = alternately({str(count): partial(timed, partial(dump_empty, folder, count)) for count in (TEN, 1)}, RUNS)
    ten, one = dumps[str(TEN)].seconds, dumps["1"].seconds
    yield (
        "fixed cost of dumping ten days",
        f"{ten:.1f} s",
        "ten dumps of one day",
        f"{TEN * one:.1f} s",
        ratio(ten, TEN * one),
    )


def ten_days(folder: Path) -> Iterator[Sequence[str]]:
    """Ten days of both types through a Dagster backfill, dump and Parquet, and its steps against the bare functions."""
    with dagster_dev(folder):
        started = time.monotonic()
        client = DagsterClient(URL)
        backfill_id = client.launch((SUBMISSION, BUILD), days(FIRST_DAY, TEN), (Stage.RAW_DUMP, Stage.PARQUET))
        last = list(client.follow(backfill_id))[-1]
        seconds = time.monotonic() - started
        if not last.succeeded:
            sys.exit(f"backfill {last.status}: {last.error}")
        with DagsterInstance.get() as instance:
            steps = [
                (step.start_time or 0, step.end_time or 0)
                for run_ in instance.get_runs()
                if run_.tags.get("dagster/backfill") == backfill_id
                for step in instance.get_run_step_stats(run_.run_id)
            ]
    theirs = TEN * sum(BASELINE.values())
    yield (
        "ten days of both types, backfill",
        f"{seconds:.0f} s",
        "pg_dump and Spark job, a day at a time",
        f"{theirs:.0f} s",
        ratio(theirs, seconds),
    )
    in_steps = max(end for _, end in steps) - min(start for start, _ in steps)
    yield "the same, first step to last", f"{in_steps:.0f} s", "", f"{theirs:.0f} s", ratio(theirs, in_steps)
    bare = sum(
        float(output("benchmarks.ingest_days", kind, str(TEN), str(FIRST_DAY), *TWO_STAGES))
        for kind in (SUBMISSION, BUILD)
    )
    yield "", f"{in_steps:.0f} s", "the same functions without Dagster", f"{bare:.0f} s", ratio(in_steps, bare)


def latencies(folder: Path) -> Iterator[Sequence[str]]:
    """Days through all stages, with S3 and BigQuery as far away as the real ones, against what has to be done here."""
    for kind, first, count in ((SUBMISSION, FIRST_DAY, TEN), (BUILD, FIRST_SMALL_DAY, SMALL_DAYS)):
        alone = timed(partial(dump_days, folder / "dumped", [Partition(kind, day) for day in days(first, count)]))
        with far_away(), watched_disk(folder / "tmp") as disk:
            before = busy_seconds()
            found = python("benchmarks.ingest_days", kind, str(count), str(first))
            cpu = busy_seconds() - before
        bound = max(alone.seconds, cpu / (os.cpu_count() or 1))
        yield (
            f"{count} days of {kind}, latencies injected", f"{found.seconds:.1f} s, {megabytes(found)}",
            f"the dump alone {alone.seconds:.1f} s, half of all CPU seconds", f"{cpu / 2:.1f} s",
            ratio(found.seconds, bound),
        )  # fmt: skip
        yield "a day; local disk at its highest", f"{found.seconds / count:.2f} s", f"{max(disk) / 1e6:.0f} MB", "", ""


def dump_days(target: Path, wanted: Sequence[Partition]) -> None:
    """Our dump of those days, and nothing else."""
    deque(Dumper(open_source(read_postgres()), target).dump(wanted), maxlen=0)
    shutil.rmtree(target)


@contextmanager
def far_away() -> Iterator[None]:
    """S3 and BigQuery behind the latencies of `benchmarks.latency`."""
    before, command = dict(os.environ), (sys.executable, "-m", "benchmarks.latency")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            s3, bigquery = (process.stdout.readline() if process.stdout else "").split()
            os.environ.update(AWS_ENDPOINT_URL=s3, BIGQUERY_EMULATOR_HOST=bigquery)
            yield
        finally:
            process.terminate()
            os.environ.update(before)


@contextmanager
def watched_disk(folder: Path) -> Iterator[list[int]]:
    """TMPDIR in that folder for processes that the block starts; gives the bytes in it, every second."""
    folder.mkdir(exist_ok=True)
    ended, sizes, before = Event(), [0], dict(os.environ)

    def watch() -> None:
        while not ended.wait(1):
            sizes.append(_size(folder))

    os.environ["TMPDIR"] = str(folder)
    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield sizes
    finally:
        ended.set()
        watcher.join()
        os.environ.clear()
        os.environ.update(before)


def _size(folder: Path) -> int:
    """Bytes of all files in a folder from which some go meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.stat(f"{parent}/{name}").st_size
    return size


def busy_seconds() -> float:
    """CPU time that this machine has spent, whoever did."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


def memory(_: Path) -> Iterator[Sequence[str]]:
    """Peak memory of batches of different sizes."""
    for kind, counts in ((SUBMISSION, (2, 10)), (BUILD, (2, 20))):
        few, many = (
            python("benchmarks.ingest_days", kind, str(count), str(FIRST_DAY), *TWO_STAGES) for count in counts
        )
        yield (
            f"peak memory of {counts[1]} days, {kind}", megabytes(many),
            f"{counts[0]} days", megabytes(few), ratio(many.peak_bytes, few.peak_bytes),
        )  # fmt: skip


def on_cluster(folder: Path) -> Iterator[Sequence[str]]:
    """A day, and ten, on a standalone cluster. The lake has the dumps of ten days from what was measured before."""
    os.environ["SPARK_LOCAL_IP"] = ADDRESS
    day = str(folder / "ours" / SUBMISSION / ds_nodash(FIRST_DAY))
    s3_pid = json.loads((STACK.state_dir / "s3.json").read_text())["pid"]
    for workers in (2, 1):
        with TemporaryDirectory() as name, cluster(Path(name), workers) as spark:
            ours = partial(python, "benchmarks.on_spark", spark.url, SUBMISSION)
            where = f"{workers} worker{'s'[: workers - 1]}"
            if workers == 2:
                found = alternately(
                    {
                        "start": partial(ours, "0"),
                        "ours": partial(ours, "1"),
                        "predecessor": partial(python, "benchmarks.predecessor", day, str(folder / "spark"), spark.url),
                    },
                    RUNS,
                )
                yield compare(f"a day on {where}", found["ours"], "Spark job there", found["predecessor"])
                idle, rest = found["start"].seconds, (found["ours"].seconds, found["predecessor"].seconds)
                mine, theirs = (seconds - idle for seconds in rest)
                yield (
                    f"the same, without {idle:.1f} s of Spark's start",
                    f"{mine:.1f} s",
                    "",
                    f"{theirs:.1f} s",
                    ratio(theirs, mine),
                )
            _, before = usage(s3_pid)
            ten = ours(str(TEN))
            others = f"{ten.cpu_seconds:.0f} s, {usage(s3_pid)[1] - before:.0f} s"
            yield f"ten days on {where}", f"{ten.seconds:.0f} s", "CPU time of the driver, of the S3 server", others, ""


def start(folder: Path) -> Iterator[Sequence[str]]:
    """Loading the code location."""
    empty = folder / "empty.py"
    empty.write_text(EMPTY_LOCATION)
    validate = (tool("dagster"), "definitions", "validate")
    found = alternately(
        {
            "ours": partial(run, (*validate, "-m", "mozagg2bq_assets.definitions")),
            "empty": partial(run, (*validate, "-f", str(empty))),
        },
        RUNS + 2,
    )
    yield compare("`dagster definitions validate`", found["ours"], "empty location, same libraries", found["empty"])


def dump(folder: Path, kind: AggregateType, day: date = FIRST_DAY) -> Measured:
    """Our dump of a day."""
    shutil.rmtree(folder / kind / ds_nodash(day), ignore_errors=True)
    options = ("--aggregate-type", kind, "--date", str(day), "--output-dir", str(folder))
    return run((tool("mozagg2bq"), "dump", *options))


def predecessor_dump(folder: Path, kind: AggregateType) -> Measured:
    """The predecessor's: one process, and pg_dump's default compression."""
    shutil.rmtree(folder, ignore_errors=True)
    pattern = f"--table=public.{kind}_*_{ds_nodash(FIRST_DAY)}*"
    return run(("pg_dump", "--format=directory", pattern, f"--file={folder}"))


def dump_empty(folder: Path, count: int) -> None:
    """Our dump of days whose tables are empty."""
    with TemporaryDirectory(dir=folder) as target:
        wanted = [Partition(SUBMISSION, day) for day in days(FIRST_EMPTY_DAY, count)]
        for _ in Dumper(open_source(read_postgres()), Path(target)).dump(wanted):
            pass


@contextmanager
def dagster_dev(folder: Path) -> Iterator[None]:
    """Dagster, until the block ends."""
    port = URL.rpartition(":")[2]
    command = (tool("dagster"), "dev", "--port", port, "--workspace", str(ROOT / "workspace.yaml"))
    with (folder / "dagster.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=os.environ["DAGSTER_HOME"], stdout=log, stderr=log)
        try:
            while process.poll() is None and not answers():
                time.sleep(0.5)
            yield
        finally:
            process.terminate()  # not SIGINT, which a benchmark in the background would have it ignore
            process.wait()


def answers() -> bool:
    """Whether the webserver is up."""
    try:
        return requests.get(f"{URL}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False


def python(module: str, *arguments: str) -> Measured:
    """A module of the benchmarks as a process."""
    return run((sys.executable, "-m", module, *arguments))


def ingest_days(kind: AggregateType, count: int) -> Measured:
    """Days through dump and Parquet, in a process."""
    return python("benchmarks.ingest_days", kind, str(count), str(FIRST_DAY), *TWO_STAGES)


def output(module: str, *arguments: str) -> str:
    """What a module of the benchmarks prints."""
    command = (sys.executable, "-m", module, *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def timed(work: Callable[[], None]) -> Measured:
    """Something in this process."""
    started = time.monotonic()
    work()
    return Measured(time.monotonic() - started, 0)


def compare(what: str, ours: Measured, other: str, theirs: Measured) -> Sequence[str]:
    """A row: times, memory, and how many times longer the other takes."""
    return (
        what, f"{ours.seconds:.2f} s, {megabytes(ours)}", other, f"{theirs.seconds:.2f} s, {megabytes(theirs)}",
        ratio(theirs.seconds, ours.seconds),
    )  # fmt: skip


def megabytes(measured: Measured) -> str:
    """Its peak."""
    return f"{measured.peak_bytes / 1e6:.0f} MB"


def ratio(one: float, other: float) -> str:
    """How many times as much."""
    return f"{one / other:.2f}"


def note(line: str) -> None:
    """Progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*filter(None, sys.argv[1:]))
