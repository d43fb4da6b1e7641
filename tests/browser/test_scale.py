"""Ten thousand machines, and a whole shift in front of the screen."""

import math
import random
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import opened, violations
from tests.support.fast_plant import FastPlant
from tests.support.http import http
from tests.support.platform import Platform

MANY = 10_000
MOST_ROWS = 80  # in the page
GROWTH = 1.2


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    running = Platform(tmp_path_factory.mktemp("large"), extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    running.start("ingestion")
    running.start("api")
    chance = random.Random(7)
    at = time.time()
    for start in range(0, MANY, 2000):
        readings = [
            {"machine_id": f"m-{number:05}", "sensor": "heat", "timestamp": at, "value": chance.random()}
            for number in range(start, start + 2000)
        ]
        assert http("POST", f"{running.api}/api/readings", {"readings": readings}).status == 200
    yield running
    running.stop()


@pytest.mark.proof("console")
def test_table_of_ten_thousand_machines_scrolls_and_sorts(page: Page, large: Platform) -> None:
    """A table of 10,000 machines sorts, scrolls, searches and updates with at most 80 rows in the page."""
    opened(page, large)
    expect(page.locator(".count-line")).to_have_text("10,000 of 10,000 machines", timeout=30_000)
    table = page.locator(".machines table")
    expect(table).to_have_attribute("aria-rowcount", str(MANY + 1))
    assert page.locator("tr.machine").count() <= MOST_ROWS
    page.get_by_role("columnheader", name="Machine", exact=True).get_by_role("button").click()
    expect(page.locator("tr.machine th").first).to_have_text("m-00000")
    page.locator(".machines").evaluate("each => { each.scrollTop = each.scrollHeight; }")
    expect(page.locator("tr.machine").last).to_contain_text("m-09999")
    assert page.locator("tr.machine").count() <= MOST_ROWS
    page.get_by_label("Search").fill("m-0777")
    expect(page.locator(".count-line")).to_have_text("10 of 10,000 machines")
    expect(page.locator("tr.machine").first).to_contain_text("m-07770")
    assert violations(page) == []
    reading = {"machine_id": "m-07771", "sensor": "heat", "timestamp": time.time(), "value": 77.125}
    assert http("POST", f"{large.api}/api/readings", {"readings": [reading]}).status == 200
    expect(page.locator("tr.machine", has_text="m-07771").locator(".values")).to_contain_text("77.1")


@pytest.mark.proof("console")
@pytest.mark.timeout(600)
def test_heap_stays_bounded_over_a_shift_of_events(page: Page) -> None:
    """Eight hours of events from 200 machines leave the heap at most 20 % above its early size."""
    with FastPlant(machines=200, seconds=8 * 3600) as fast:
        page.goto(fast.url)
        page.wait_for_selector("html[data-ready]")
        session = page.context.new_cdp_session(page)
        session.send("HeapProfiler.enable")

        def heap() -> float:
            session.send("HeapProfiler.collectGarbage")
            return float(session.send("Runtime.getHeapUsage")["usedSize"])

        def passed() -> float:
            return float(fast.passed)

        early = middle = math.nan
        while passed() < 1:
            page.wait_for_timeout(500)
            if math.isnan(early) and passed() > 0.05:
                early = heap()
            if math.isnan(middle) and passed() > 0.5:
                middle = heap()
        page.wait_for_timeout(1000)
        late = heap()
        print(f"heap: {early / 1e6:.2f} MB after 5 %, {middle / 1e6:.2f} MB after half, {late / 1e6:.2f} MB after all")
        expect(page.locator("tr.machine").first).to_be_visible()
        assert late <= GROWTH * early
