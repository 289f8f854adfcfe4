"""This machine: a disk that is full, tools that are missing, old or broken."""

import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from mozagg2bq_assets.postgres import pg_dump
from mozagg2bq_assets_tests.faults.harness import Harness, Injection, check, parametrized


def full_disk(kilobytes: int) -> Callable[[Harness], AbstractContextManager[None]]:
    """Let the run's folder be a file system of that size."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        harness.folder.mkdir(exist_ok=True)
        mount = ("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(harness.folder))
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("only root may mount a file system")
        try:
            yield
        finally:
            subprocess.run(("umount", str(harness.folder)), check=True)

    return inject


def tool(name: str, script: str | None) -> Callable[[Harness], AbstractContextManager[None]]:
    """Put a script in the place of one of PostgreSQL's tools; None for nothing at all."""

    @contextmanager
    def inject(harness: Harness) -> Iterator[None]:
        folder = harness.folder.parent / "tools"
        folder.mkdir()
        real = Path(shutil.which("pg_dump") or "").parent
        for each in ("pg_dump", "pg_restore", "psql"):
            if each != name:
                (folder / each).symlink_to(real / each)
            elif script is not None:
                (folder / each).write_text(f"#!/bin/sh\n{script.replace('REAL', str(real / name))}\n")
                (folder / each).chmod(stat.S_IRWXU)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", str(folder) if script is None else f"{folder}:/usr/bin:/bin")
            patch.setattr(pg_dump, "DEADLINE_SECONDS", 2)
            patch.setattr(pg_dump, "END_SECONDS", 1)
            yield

    return inject


VERSION = '[ "$1" = --version ] && exec REAL "$@"'
SCRIPTS: dict[str, tuple[str, str | None, str]] = {
    "no pg_dump": ("pg_dump", None, "pg_dump is not on PATH: install PostgreSQL's client tools"),
    "no pg_restore": ("pg_restore", None, "pg_restore is not on PATH: install PostgreSQL's client tools"),
    "pg_dump fails": (
        "pg_dump",
        f"{VERSION}; echo 'pg_dump: error: said so' >&2; exit 1",
        "pg_dump failed: error: said",
    ),
    "pg_dump fails in silence": ("pg_dump", f"{VERSION}; exit 3", "exit status 3"),
    "pg_dump speaks at length": (
        "pg_dump",
        f"{VERSION}; yes 'pg_dump: error: no' | head -9999 >&2; exit 1",
        "error: no",
    ),
    "pg_dump does nothing": ("pg_dump", f"{VERSION}; exit 0", ""),
    "pg_dump never ends": ("pg_dump", f"{VERSION}; sleep 1000", "pg_dump was ended, as it took more than"),
    "pg_dump's child never ends": ("pg_dump", f"{VERSION}; sleep 1000 & sleep 1000", "as it took more than"),
    "pg_dump is too old": (
        "pg_dump",
        f"{VERSION}; echo 'pg_dump: error: aborting because of server version mismatch' >&2; exit 1",
        "server version mismatch",
    ),
    "pg_dump runs out of memory": ("pg_dump", f"{VERSION}; kill -9 $$", "perhaps for want of memory"),
    "pg_dump meets a full disk": (
        "pg_dump",
        f"{VERSION}; echo 'pg_dump: error: could not write to file: No space left on device' >&2; exit 1",
        "the disk is full",
    ),
    "pg_dump leaves out a table": ("pg_dump", f'{VERSION}; exec REAL "$@" --exclude-table=*_7*', "pg_dump left out"),
    "pg_dump cuts a file": (
        "pg_dump",
        f'{VERSION}; REAL "$@" && for last; do :; done && d=$(echo "$*" | sed "s/.*--file=//; s/ .*//")'
        ' && f=$(ls -S "$d"/*.dat | grep -v toc | head -1) && truncate -s -10 "$f"',
        "",
    ),
    "pg_restore fails": ("pg_restore", "echo 'pg_restore: error: said so' >&2; exit 1", "unreadable archive"),
    "pg_restore says nothing": ("pg_restore", "exit 0", "unreadable archive"),
}


def _injections() -> Iterator[Injection]:
    for kilobytes in (16, 64, 128, 192, 256, 320, 384, 512, 768, 1024):
        yield Injection(f"disk: full at {kilobytes} KiB", full_disk(kilobytes))
    for kind, (name, script, says) in SCRIPTS.items():
        yield Injection(f"tools: {kind}", tool(name, script), says=says)


@pytest.mark.stress
@parametrized(list(_injections()), 6)
def test_machine(harness: Harness, injection: Injection) -> None:
    """Whatever this machine lacks."""
    check(harness, injection)
