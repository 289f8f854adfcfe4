"""Spark's session: what it needs to start, and its errors as one line."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from py4j.protocol import Py4JJavaError
from pyspark import __version__
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from mozagg2bq_assets.errors import UserError
from mozagg2bq_assets.settings import SparkSettings

OLDEST_JAVA = 17


def spark_config(settings: SparkSettings) -> dict[str, str]:
    """Spark's configuration, besides what its own `spark-defaults.conf` says."""
    config = {
        "spark.app.name": "mozagg2bq",
        "spark.master": settings.master,
        "spark.ui.showConsoleProgress": "false",
    }
    if settings.archive:
        config |= {"spark.archives": f"{settings.archive}#environment", "spark.executorEnv.PYTHONPATH": "environment"}
    return config


def open_session(config: Mapping[str, str]) -> SparkSession:
    """Start Spark, or take the session that this process has. Raises UserError where it does not start."""
    prepare()
    with spark_errors(config["spark.master"]):
        return SparkSession.builder.config(map={**config}).getOrCreate()


def prepare() -> None:
    """See that Spark can start. Raises UserError where there is no Java to run it, or SPARK_HOME leads elsewhere.

    Executors run our own Python, unless PYSPARK_PYTHON names one; Spark would take any `python3` on PATH.
    """
    check_java()
    _check_home()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)


def check_java() -> None:
    """Raise UserError unless `java` is a runtime that Spark can use."""
    advice = f"Spark needs a JDK {OLDEST_JAVA} or newer: install one (Debian: openjdk-{OLDEST_JAVA}-jdk-headless)"
    try:
        result = subprocess.run((_java(), "-version"), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError(f"no Java found; {advice}, or set JAVA_HOME") from None
    version = re.search(r'version "(?:1\.)?(\d+)', result.stderr)
    if version is None or int(version[1]) < OLDEST_JAVA:
        raise UserError(f"Java is too old ({result.stderr.splitlines()[0]}); {advice}, or set JAVA_HOME")


def _check_home() -> None:
    """Raise UserError where SPARK_HOME, which pyspark follows, does not name a Spark of pyspark's own version."""
    home = os.environ.get("SPARK_HOME")
    if home and not list(Path(home, "jars").glob(f"spark-core_*-{__version__}.jar")):
        raise UserError(f"SPARK_HOME is {home}, where there is no Spark {__version__}: unset it, or name one")


@contextmanager
def spark_errors(master: str) -> Iterator[None]:
    """UserError with the cause in one line for what stops Spark: no executors, a lake out of their reach, no memory."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        raise UserError(f"Spark, master {master}: {_cause(str(error))}") from error


def _cause(message: str) -> str:
    """The last error line before Java's stack trace, or the first line where there is none.

    If there is an executor's Python traceback, this is the Python error.
    """
    before_java = re.split(r"^\s+at |^(?:JVM|Driver) stacktrace:", message, maxsplit=1, flags=re.MULTILINE)[0].strip()
    errors = re.findall(r"^(?:: )?([\w.$]+(?:Error|Exception)\b.*)", before_java, re.MULTILINE)
    return str(errors[-1]) if errors else before_java.partition("\n")[0]


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"
