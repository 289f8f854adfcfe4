#!/usr/bin/env python3
"""Check the wheel and the sdist in a folder: what they hold, and that the wheel works where nothing else of ours is.

deploy/check_release.py FOLDER 'PACKAGES OF AN EXECUTOR'     exits with status 1 and a line on what is wrong
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

from mozagg2bq_assets.local.postgres import tools_dir

ROOT = Path(__file__).parents[1]
PACKAGE = "mozagg2bq_assets"
ARCHIVE = ROOT / "mozagg2bq_assets_tests" / "postgres" / "archives" / "18" / "build_id" / "20191201"
# Much is imported where it is used. What needs the extras `local` and `spark` is left out.
IMPORTS = f"""
import importlib, pkgutil, {PACKAGE}
EXTRAS = tuple(f"{PACKAGE}.{{name}}" for name in ("local", "cli.local", "parquet.concatenate", "spark"))
for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}."):
    if not module.name.startswith(EXTRAS):
        importlib.import_module(module.name)
"""


def main(folder: Path, executor_packages: list[str]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    check_changelog(version)
    wheel = folder / f"mozagg2bq-{version}-py3-none-any.whl"
    check_wheel(wheel)
    check_sdist(folder / f"mozagg2bq-{version}.tar.gz")
    with tempfile.TemporaryDirectory() as name:
        check_installed(wheel, version, Path(name))
        check_executors(wheel, executor_packages, Path(name))
    print(f"{wheel.name}: good")


def check_changelog(version: str) -> None:
    """A version of the changelog has its date; one that is still developed is under `[Unreleased]`."""
    heading = r"\[Unreleased\]" if ".dev" in version else rf"\[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d"
    expect(re.search(rf"^## {heading}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE), f"no changes of {version}")


def check_wheel(wheel: Path) -> None:
    """All of the package's files that Git knows, the licence, and nothing else."""
    listed = subprocess.run(("git", "ls-files", PACKAGE), cwd=ROOT, capture_output=True, text=True, check=True)
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expect(names == set(listed.stdout.split()), f"the wheel differs: {sorted(names ^ set(listed.stdout.split()))}")
    kept = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    expect(kept, "the wheel has no licence")


def check_sdist(sdist: Path) -> None:
    """What the wheel is made of."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expect(names >= {"pyproject.toml", "README.md", "LICENSE", f"{PACKAGE}/parquet/rows.sql"}, "the sdist lacks files")


def check_installed(wheel: Path, version: str, folder: Path) -> None:
    """The command and the definitions, from an environment of its own."""
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    bin_folder = folder / "venv" / "bin"
    install(bin_folder, f"{wheel.resolve()}[deploy]")
    said = run(str(bin_folder / "mozagg2bq"), "--version", cwd=folder)
    expect(said == f"mozagg2bq, version {version}\n", f"--version says {said!r}")
    output = ("--output-dir", str(folder))
    run(str(bin_folder / "mozagg2bq"), "to-parquet", "--quiet", "--input-dir", str(ARCHIVE), *output, cwd=folder)
    run(str(bin_folder / "python"), "-c", IMPORTS, cwd=folder)
    run(str(bin_folder / "dagster"), "definitions", "validate", "-m", f"{PACKAGE}.definitions", cwd=folder)
    # Google's client imports pandas wherever it is, for nothing: 45 MB and half a second of each run.
    expect("pandas" not in run(str(bin_folder / "pip"), "list", cwd=folder), "pandas is installed with the wheel")


def check_executors(wheel: Path, packages: list[str], folder: Path) -> None:
    """The archive of Spark's executors, made of the wheel: a Python that has nothing else imports a task's code."""
    bin_folder, target = folder / "venv" / "bin", folder / "executors"
    install(bin_folder, "--no-deps", "--target", str(target), str(wheel.resolve()))
    install(bin_folder, "--target", str(target), *packages)
    task = f"import sys; sys.path.insert(0, {str(target)!r}); import {PACKAGE}.spark.job, {PACKAGE}.spark.storage"
    run(sys.executable, "-I", "-S", "-c", task, cwd=folder)


def install(bin_folder: Path, *arguments: str) -> None:
    """Install it at the pinned versions."""
    uv = Path(sys.executable).with_name("uv")
    constraints = str(ROOT / "constraints.txt")
    python = str(bin_folder / "python")
    run(str(uv), "pip", "install", "--quiet", "--python", python, "--constraint", constraints, *arguments)


def run(*command: str, cwd: Path | None = None) -> str:
    """What it prints. Without the variables that could lead its imports here, and with PostgreSQL's tools on PATH."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DAGSTER_"))}
    environment["PATH"] = os.pathsep.join((str(tools_dir()), environment["PATH"]))
    result = subprocess.run(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    expect(result.returncode == 0, f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}")
    return result.stdout


def expect(condition: object, otherwise: str) -> None:
    """Exit with that line unless the condition holds."""
    if not condition:
        sys.exit(f"error: {otherwise}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split())
