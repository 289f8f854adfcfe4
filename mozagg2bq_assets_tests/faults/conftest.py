"""The harness as a fixture, and the table of `docs/reliability.md`, which the full suite writes."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mozagg2bq_assets import patience
from mozagg2bq_assets.bigquery import warehouse as warehouse_module
from mozagg2bq_assets.postgres import connection
from mozagg2bq_assets.postgres.connection import Postgres
from mozagg2bq_assets_tests.faults.harness import Harness, days_under_fault, is_long
from mozagg2bq_assets_tests.helpers.proxies import HttpProxy, socket_of, tcp_proxy
from mozagg2bq_assets_tests.helpers.runs import Pipeline

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
AREAS = {"BigQuery", "PostgreSQL", "S3", "disk", "instances", "lake", "pg_dump", "role", "signals", "standby", "tools"}
BEGIN, END = "<!-- the suite writes from here -->", "<!-- to here -->"


@pytest.fixture
def harness(
    empty_pipeline: Pipeline,
    source: Postgres,
    s3: HttpProxy,
    service: HttpProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> Iterator[Harness]:
    """Some days in the source, and everything by way of proxies; pauses are short."""
    days = days_under_fault()
    empty_pipeline.seed(days)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(warehouse_module, "RETRY", None)
    monkeypatch.setattr(warehouse_module, "UPLOAD_RETRIES", 0)
    hurried = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2, "tcp_user_timeout": 3000}
    monkeypatch.setattr(connection, "KEEPALIVES", connection.KEEPALIVES | hurried)
    with tcp_proxy(socket_of(source)) as network:
        yield Harness(empty_pipeline, source, network, s3, service, tmp_path / "work", days, record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many faults were injected; after a full run without a failure, write the page's table."""
    found = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "injection"
    }
    if not found:
        return
    kinds = {each["kind"] for each in found.values()}
    terminalreporter.write_line(f"{len(found)} faults of {len(kinds)} kinds injected")
    areas = {each["kind"].partition(":")[0] for each in found.values()}
    if is_long() and areas == AREAS and not terminalreporter.stats.get("failed"):
        text = PAGE.read_text()
        head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        PAGE.write_text(f"{head}\n\n{_table(found)}\n\n{tail}")


def _table(found: dict[str, dict[str, str]]) -> str:
    """A row for each area: the part of a kind before the colon."""
    areas: dict[str, list[dict[str, str]]] = {}
    for each in found.values():
        areas.setdefault(each["kind"].partition(":")[0], []).append(each)
    lines = [
        "| what fails | kinds | injections | exact | clean error | rows lost or doubled | hangs |",
        "|---|---|---|---|---|---|---|",
    ]
    for area, injections in [*sorted(areas.items()), ("all", [*found.values()])]:
        outcomes = Counter(each["outcome"] for each in injections)
        kinds = len({each["kind"] for each in injections})
        row = (area, kinds, len(injections), outcomes["exact"], outcomes["clean error"], 0, 0)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines)
