"""Fuzzing: damage archives at random; each ends in the exact rows or in an error, or this program says which did not.

`python -m mozagg2bq_assets_tests.parquet.fuzz COUNT SEED`, in the environment of a local stack. A process of its own,
so that its memory is its own, and so that the kernel can end it when a case hangs.
"""

import random
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from mozagg2bq_assets.errors import DataError, UserError
from mozagg2bq_assets.lake.manifest import DumpDetails, DumpManifest
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.lake.writer import LakeWriter, new_version
from mozagg2bq_assets.model.counts import TableCounts
from mozagg2bq_assets.model.files import describe
from mozagg2bq_assets.model.partitions import Partition, Stage
from mozagg2bq_assets.model.runs import Run
from mozagg2bq_assets.model.tables import AggregateType
from mozagg2bq_assets.parquet.writer import write_parquet
from mozagg2bq_assets.postgres.archive import open_archive
from mozagg2bq_assets.settings import LakeSettings
from mozagg2bq_assets_tests.helpers.archives import archive_folder, archived_rows, counted
from mozagg2bq_assets_tests.helpers.rows import FIRST_DAY, Rows, parquet_rows

PARTITION = Partition(AggregateType.BUILD_ID, FIRST_DAY)
HANG_SECONDS = 60


def flip(data: bytes, draw: random.Random, _: bytes) -> bytes:
    """Change one to four bytes."""
    changed = bytearray(data)
    for _times in range(draw.randint(1, 4)):
        changed[draw.randrange(len(changed))] ^= draw.randint(1, 255)
    return bytes(changed)


def truncate(data: bytes, draw: random.Random, _: bytes) -> bytes:
    """Cut off the end, of one byte and up to all."""
    return data[: draw.randrange(len(data))]


def splice(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """Put a piece of another file in the place of a piece, either of which may be empty.

    Never all of one for all of the other: a whole file in the place of another is no damage that a bare folder shows.
    """
    start, end = sorted(draw.randrange(1, len(data)) for _ in range(2))
    from_, to = sorted(draw.randrange(len(other) + 1) for _ in range(2))
    return data[:start] + other[from_:to] + data[end:]


MUTATIONS: tuple[Callable[[bytes, random.Random, bytes], bytes], ...] = (flip, truncate, splice)


def bare_folders(draw: random.Random, work: Path) -> Iterator[tuple[str, Rows, Callable[[], Rows]]]:
    """Cases on gzip data in folders without a manifest."""
    while True:
        version = draw.choice(("15", "18"))
        folder = shutil.copytree(archive_folder(version), work / PARTITION.path)
        victim, other = draw.sample(sorted(folder.glob("*.dat.gz")), 2)
        mutate = draw.choice(MUTATIONS)
        victim.write_bytes(mutate(victim.read_bytes(), draw, other.read_bytes()))
        yield (
            f"{mutate.__name__} of {victim.name} from pg_dump {version}",
            archived_rows(version),
            partial(rows_of, folder),
        )
        shutil.rmtree(folder)


def lake_objects(draw: random.Random, work: Path) -> Iterator[tuple[str, Rows, Callable[[], Rows]]]:
    """Cases on every file of a version in the lake, its manifest among them."""
    lake = Lake(LakeSettings.read(uri=f"s3://lake/fuzz-{uuid4()}"))
    commit(lake, sorted(archive_folder("18").iterdir()))
    keys = [found.key for found in lake.list(lake.key(Stage.RAW_DUMP, PARTITION.path) + "/")]
    whole = {key: lake.client.get_object(Bucket=lake.bucket, Key=key)["Body"].read() for key in keys}
    while True:
        victim, other = draw.sample(keys, 2)
        mutate = draw.choice(MUTATIONS)
        lake.client.put_object(Bucket=lake.bucket, Key=victim, Body=mutate(whole[victim], draw, whole[other]))
        yield f"{mutate.__name__} of {victim}", archived_rows("18"), partial(rows_in_lake, lake, work / "fetched")
        lake.client.put_object(Bucket=lake.bucket, Key=victim, Body=whole[victim])
        shutil.rmtree(work / "fetched", ignore_errors=True)


def commit(lake: Lake, paths: list[Path]) -> None:
    """An archive as a version of the lake."""
    rows = counted(open_archive(paths[0].parent, PARTITION))
    now, run = datetime.now(UTC), Run("fuzz", "fuzz")
    manifest = DumpManifest(
        aggregate_type=PARTITION.aggregate_type,
        day=PARTITION.day,
        version=new_version("fuzz"),
        run=run,
        committed_at=now,
        ingest_date=now.date(),
        files=tuple(map(describe, paths)),
        rows=rows,
        details=DumpDetails(
            snapshot="0-1", taken_at=now, snapshot_held_seconds=0, rows_in_snapshot=TableCounts(), pg_dump="pg_dump 18"
        ),
    )
    LakeWriter(lake, run, lambda _: False).commit(manifest, paths)


def rows_in_lake(lake: Lake, folder: Path) -> Rows:
    """The rows of the partition that the lake has, by way of its manifest."""
    manifest = lake.read(DumpManifest, PARTITION)
    if manifest is None:
        raise AssertionError("the manifest is overlooked")
    lake.fetch(manifest, folder)
    return rows_of(folder)


def rows_of(folder: Path) -> Rows:
    """The rows of a folder, without their ingest date."""
    file = write_parquet(open_archive(folder, PARTITION), FIRST_DAY, folder.parent / "out.parquet")
    return Counter(row[1:] for row in parquet_rows(file.path).elements())


def main(count: int, seed: int) -> int:
    """Run so many cases of each kind; 0 if each ended as it should."""
    wrong = 0
    endings: Counter[str] = Counter()
    for cases in (bare_folders, lake_objects):
        with TemporaryDirectory() as folder:
            draw = random.Random(seed)  # noqa: S311
            for name, rows, attempt in islice(cases(draw, Path(folder)), count):
                signal.alarm(HANG_SECONDS)
                try:
                    ending = "exact" if attempt() == rows else "WRONG ROWS"
                except (DataError, UserError) as error:
                    ending = "error" if "\n" not in str(error) else "ERROR OF SEVERAL LINES"
                except Exception as error:
                    ending = f"ESCAPED {error!r}"
                signal.alarm(0)
                endings[f"{cases.__name__}: {ending.split()[0]}"] += 1
                if ending not in ("exact", "error"):
                    wrong += 1
                    print(f"{name}: {ending}")
    # Not ru_maxrss: that begins with what the process had that started this one.
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) // 1024
    print(f"{dict(endings)}, peak memory {peak} MB")
    return 1 if wrong or peak > 1000 else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
