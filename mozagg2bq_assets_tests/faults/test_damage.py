"""Objects that change in the lake behind our back, after they were committed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from mozagg2bq_assets.lake.manifest import DumpManifest, LoadManifest, ParquetManifest
from mozagg2bq_assets.lake.store import MANIFEST
from mozagg2bq_assets.model.partitions import Stage
from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, parametrized
from mozagg2bq_assets_tests.helpers.runs import DAYS

SECOND = list(DAYS)[1]
CONVERT, LOAD = (Stage.PARQUET, Stage.BIGQUERY_TABLE), (Stage.BIGQUERY_TABLE,)
OBJECTS: dict[str, tuple[Stage, str, tuple[Stage, ...]]] = {
    "a dump's manifest": (Stage.RAW_DUMP, MANIFEST, CONVERT),
    "a table of contents": (Stage.RAW_DUMP, "toc.dat", CONVERT),
    "a list": (Stage.RAW_DUMP, "toc.list", CONVERT),
    "a data file": (Stage.RAW_DUMP, ".dat.gz", CONVERT),
    "a Parquet file's manifest": (Stage.PARQUET, MANIFEST, LOAD),
    "a Parquet file": (Stage.PARQUET, ".parquet", LOAD),
}
DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "cut": lambda body: body[: len(body) // 2],
    "with a bit flipped": lambda body: (
        body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
    ),
    "longer": lambda body: body + b"more",
    "somebody else's": lambda _: b"[" * 100_000,
}


def damaged(
    stage: Stage, suffix: str, damage: Callable[[bytes], bytes | None]
) -> Callable[[Harness], AbstractContextManager[None]]:
    """Change one of the second day's objects."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        lake = harness.pipeline.lake
        key = harness.pipeline.object_keys(stage, suffix, SECOND)[0]
        body = damage(lake.client.get_object(Bucket=lake.bucket, Key=key)["Body"].read())
        if body is None:
            lake.client.delete_object(Bucket=lake.bucket, Key=key)
        else:
            lake.client.put_object(Bucket=lake.bucket, Key=key, Body=body)
        yield

    return inject


def strangers(*keys: str) -> Callable[[Harness], AbstractContextManager[None]]:
    """Put objects beside ours; `{stage}` stands for each stage's folder."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        lake = harness.pipeline.lake
        placed = [
            lake.key(kind.of, "build_id", key) for kind in (DumpManifest, ParquetManifest, LoadManifest) for key in keys
        ]
        for key in placed:
            lake.client.put_object(Bucket=lake.bucket, Key=key, Body=b"{}")
        yield
        lake.delete(placed)

    return inject


STRANGERS = {
    "a month that is none": "20191301/manifest.json",
    "a folder that is no day": "latest/manifest.json",
    "a file beside the days": "README.txt",
    "a file in a day": "20191202/README.txt",
    "the manifest of a day never ingested": "20191209/manifest.json",
    "a blank in a name": "20191202/a b/x y",
}


def _injections() -> Iterator[Injection]:
    for name, (stage, suffix, stages) in OBJECTS.items():
        for kind, damage in DAMAGES.items():
            yield Injection(f"lake: {name}, {kind}", damaged(stage, suffix, damage), stages=stages)
    for name, key in STRANGERS.items():
        yield Injection(f"lake: {name}", strangers(key), exact=True)


@pytest.mark.stress
@parametrized(list(_injections()), 6)
def test_damage(harness: Harness, injection: Injection) -> None:
    """What is read is checked; the other days are exact."""
    check(harness, injection)
