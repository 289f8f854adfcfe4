"""The commands of README and pages, run as they are written.

In order, each page in a shell of its own, in a copy of the tree with an embedded stack and a Dagster of its own. A page
may use what the pages before it have made.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from mozagg2bq_assets.local.stack import ROOT, isolated
from mozagg2bq_assets_tests.docs.pages import blocks, commands, pages
from mozagg2bq_assets_tests.helpers.dagster import dagster_dev
from mozagg2bq_assets_tests.helpers.wait import wait_for_midnight

pytestmark = pytest.mark.integration

SECONDS = 240
# What a clone does not have, or what belongs to this one alone.
LEFT_OUT = (
    *(".git", ".venv*", ".local", ".*_cache", ".hypothesis", ".tmp_dagster_home_*", "__pycache__"),
    *("build", "data", "dist", "site"),
)
# Blocks that cannot be run here, by page: the text before each says why.
NOT_RUN = {"deployment.md": 4, "spark.md": 1}


class Tree(NamedTuple):
    """A copy of the project, and the environment of a reader's shell in it."""

    folder: Path
    environment: Mapping[str, str]


@pytest.fixture(scope="module")
def tree() -> Iterator[Tree]:
    """Installed, with a stack that has sample data, Dagster, and an `.env` that leads to them."""
    # Not in pytest's folder: the path of a socket must be short, and PostgreSQL does not run as root.
    with tempfile.TemporaryDirectory(prefix="docs-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT, folder, dirs_exist_ok=True, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
        for environment in (".venv", ".venv-bigquery"):
            (folder / environment).symlink_to((ROOT / environment).resolve())
        shell = isolated({"PYTHONPATH": name})
        installed = Path(sys.executable).parent
        # The pages have to say how their reader gets at the commands.
        shell["PATH"] = os.pathsep.join(place for place in shell["PATH"].split(os.pathsep) if place != str(installed))

        def local(action: str) -> None:
            command = (installed / "mozagg2bq", "local", action)
            subprocess.run(command, cwd=folder, env=shell, check=True, stdout=subprocess.DEVNULL)

        wait_for_midnight(5)
        try:
            local("up")
            local("seed")
            variables = json.loads((folder / ".local" / "environment.json").read_text())
            with dagster_dev(folder / ".local", {**shell, **variables}) as (url, _):
                variables["DAGSTER_URL"] = url
                lines = (f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
                (folder / ".env").write_text("".join(lines))
                yield Tree(folder, shell)
        finally:
            local("down")


@pytest.mark.parametrize("page", [page for page in pages() if commands(page)], ids=lambda page: page.stem)
def test_commands(page: Path, tree: Tree) -> None:
    script = tree.folder / "commands.sh"
    script.write_text(commands(page))
    done = subprocess.run(
        ("bash", "-euxo", "pipefail", script), cwd=tree.folder, env=tree.environment, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    found = {
        page.name: [each for each in blocks(page) if each.language in ("console", "sh", "shell")] for page in pages()
    }
    assert {name: len(each) for name, each in found.items() if each} == NOT_RUN
    assert all(
        "do not run this block, because" in " ".join(each.before.split()) for some in found.values() for each in some
    )
