"""An operator's way through Dagster's pages: a backfill from the dialog, its run, a day, a red check, automation.

With PICTURES=docs/pictures the pictures of the documentation are made anew.
"""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from mozagg2bq_assets.bigquery.warehouse import Warehouse
from mozagg2bq_assets.lake.store import Lake
from mozagg2bq_assets.local import sample
from mozagg2bq_assets.local.stack import ROOT
from mozagg2bq_assets.model.partitions import DayRange, Partition, Stage
from mozagg2bq_assets_tests.helpers.dagster import dagster_dev
from mozagg2bq_assets_tests.helpers.runs import TYPE, Pipeline
from mozagg2bq_assets_tests.helpers.wait import wait_for_midnight

SECONDS = 1000.0
# Dagster's daemon looks for new backfills every 30 s.
BACKFILL_WAIT = 90 * SECONDS
SCALE = 0.01


@pytest.fixture
def recent(administrator: psycopg.Connection, lake: Lake, warehouse: Warehouse) -> Pipeline:
    """Two weeks of days in the source, of which the last two have most rows; nothing behind it."""
    wait_for_midnight(5)
    sample.create_update_dates(administrator)
    days = list(sample.days())
    for day in days:
        for _ in sample.seed_partition(administrator, Partition(TYPE, day), SCALE if day in days[-2:] else 0.001):
            pass
    return Pipeline(administrator, lake, warehouse)


@pytest.fixture
def dagster_url(recent: Pipeline, tmp_path: Path) -> Iterator[str]:
    """`dagster dev` over that source, whose partitions begin with its first day."""
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PARTITIONS_START": str(sample.days().start)}
    with dagster_dev(tmp_path, environment) as (url, _):
        yield url


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A page of the browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 720})
        page.set_default_timeout(30 * SECONDS)
        expect.set_options(timeout=30 * SECONDS)
        yield page
        browser.close()


def picture(page: Page, name: str) -> None:
    """Keep a picture, if somebody wants it."""
    if folder := os.environ.get("PICTURES"):
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png", animations="disabled")


def test_an_operators_way(dagster_url: str, recent: Pipeline, page: Page) -> None:
    """Each page says what an operator wants to know, and a red mark leads to its remedy."""
    last = sample.days().end - timedelta(days=1)
    days = DayRange(last - timedelta(days=1), last + timedelta(days=1))
    run_url = backfill_from_the_dialog(page, dagster_url, days)
    the_run_while_it_runs(page, run_url, days)
    assert recent.reconcile(days).differences == []
    the_graph(page, dagster_url)
    a_partition(page, dagster_url, days)
    checks_of_each_day(page, dagster_url, days)
    a_red_check(page, dagster_url, recent, days)
    automation(page, dagster_url)


def backfill_from_the_dialog(page: Page, url: str, days: DayRange) -> str:
    """Launch a backfill of those days from the job's page; returns the page of its run."""
    page.goto(f"{url}/locations/mozagg2bq/jobs/{TYPE}_job")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("14 of 14 partitions")).to_be_visible()
    keys = f"[{days.start}...{days.end - timedelta(days=1)}]"
    dialog.get_by_role("textbox").first.fill(keys)
    dialog.get_by_role("textbox").first.press("Tab")
    expect(dialog.get_by_text("2 partitions", exact=True)).to_be_visible()
    picture(page, "backfill-dialog")
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).not_to_be_visible()
    page.goto(f"{url}/runs")
    page.locator("a[href*='/runs/b/']").first.click()
    page.get_by_text("Timeline", exact=True).wait_for()
    page.get_by_text("Runs", exact=True).last.click()
    run = page.locator("a", has_text=re.compile(r"^[0-9a-f]{8}$")).first
    run.click(timeout=BACKFILL_WAIT)
    page.wait_for_url(re.compile(r"/runs/[0-9a-f-]{36}"))
    return page.url


def the_run_while_it_runs(page: Page, run_url: str, days: DayRange) -> None:
    """A line for each day and stage."""
    page.goto(run_url)
    last, log_filter = days.end - timedelta(days=1), page.locator("input[placeholder='Filter…']").first
    log_filter.fill("begins")
    expect(page.get_by_text(f"{days.start} to {last} raw_dump: begins")).to_be_visible(timeout=BACKFILL_WAIT)
    log_filter.fill("days,")
    for stage in Stage:
        expect(page.get_by_text(re.compile(rf"2 of 2 days, \S+ {stage}: ")).first).to_be_visible()
    picture(page, "run")
    expect(page.get_by_text("Success", exact=True)).to_be_visible()


def the_graph(page: Page, url: str) -> None:
    """The type's assets, from source to view."""
    page.goto(f"{url}/locations/mozagg2bq/asset-groups/{TYPE}/lineage")
    for name in ("source_tables", *Stage, "histograms"):
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    picture(page, "graph")


def a_partition(page: Page, url: str, days: DayRange) -> None:
    """Its rows by channel and version, its size, its seconds."""
    page.goto(f"{url}/assets/{TYPE}/parquet?view=partitions&partition={days.start}")
    for text in ("dagster/partition_row_count", "MB", "seconds", "channel", "version"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    picture(page, "partition")


def checks_of_each_day(page: Page, url: str, days: DayRange) -> None:
    """Those that were taken have passed, the others are missing."""
    page.goto(f"{url}/assets/{TYPE}/parquet?view=checks")
    partitions_of_the_check(page)
    expect(page.get_by_text(f"Passed ({len(days)})")).to_be_visible()
    page.get_by_text(str(days.start), exact=True).first.click()
    expect(page.get_by_text("by channel and version as in the dump").first).to_be_visible()
    picture(page, "checks")


def partitions_of_the_check(page: Page) -> None:
    """Open the check's own tab of that name: the asset has one too."""
    page.get_by_text("Execution history", exact=True).wait_for()
    page.get_by_text("Partitions", exact=True).last.click()


def a_red_check(page: Page, url: str, recent: Pipeline, days: DayRange) -> None:
    """An object is lost; "Execute all" finds it, and says what to materialize."""
    recent.lake.delete(recent.object_keys(Stage.PARQUET, ".parquet", days.start))
    page.goto(f"{url}/assets/{TYPE}/parquet?view=checks")
    page.get_by_role("button", name="Execute all").click()
    expect(page.get_by_text("Failed", exact=True).first).to_be_visible(timeout=BACKFILL_WAIT)
    partitions_of_the_check(page)
    expect(page.get_by_text("Failed (1)")).to_be_visible()
    page.get_by_text(str(days.start), exact=True).first.click()
    expect(
        page.get_by_text(f"is missing from the lake: materialize {TYPE}/parquet of {days.start}, then")
    ).to_be_visible()
    picture(page, "red-check")


def automation(page: Page, url: str) -> None:
    """The pages of a schedule and of a sensor say what they do, and are off."""
    page.goto(f"{url}/locations/mozagg2bq/schedules/{TYPE}_job_schedule")
    expect(page.get_by_text("Of the 7 days up to yesterday, those that are not loaded yet")).to_be_visible()
    picture(page, "schedule")
    page.goto(f"{url}/locations/mozagg2bq/sensors/{TYPE}_late_data")
    expect(page.get_by_text("Ingests days again that the source has changed since they were loaded")).to_be_visible()
    picture(page, "sensor")
