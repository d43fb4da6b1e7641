"""What a page shows when a part of it cannot be loaded, and that the next try works."""

import re

from playwright.sync_api import Page, expect

from tests.support.browser import Watched, a_pump, opened
from tests.support.platform import Platform


def test_page_that_cannot_be_loaded_says_so(page: Page, plant: Platform, watched: Watched) -> None:
    """A page whose script cannot be loaded shows an error, and opens at the next try."""
    watched.expected = ["ERR_FAILED"]
    opened(page, plant)
    page.route("**/console/alarms.js", lambda route: route.abort())
    page.get_by_role("link", name="Alarms").first.click()
    expect(page.locator("main")).to_contain_text("This page could not be loaded")
    page.unroute("**/console/alarms.js")
    page.get_by_role("link", name="Plant").first.click()
    expect(page.locator("tr.machine").first).to_be_visible()
    page.get_by_role("link", name="Alarms").first.click()
    expect(page.get_by_label("Your name")).to_be_visible()


def test_charts_are_drawn_after_their_library_failed(page: Page, plant: Platform, watched: Watched) -> None:
    """A chart library that cannot be loaded is reported, and the charts are drawn at the next load."""
    watched.expected = ["ERR_FAILED"]
    opened(page, plant)
    name = a_pump(page)
    page.route("**/uPlot.iife.min.js", lambda route: route.abort())
    opened(page, plant, f"/machines/{name}")
    expect(page.get_by_text("The charts could not be loaded.")).to_be_visible()
    page.unroute("**/uPlot.iife.min.js")
    page.get_by_role("button", name="6 h", exact=True).click()
    expect(page.locator("[data-sensor=vibration_mm_s] canvas")).to_be_visible()
    expect(page.get_by_text("The charts could not be loaded.")).to_be_hidden()


def test_machine_page_is_left_while_it_loads(page: Page, plant: Platform) -> None:
    """Leaving a machine's page aborts its requests without an unhandled error."""
    opened(page, plant)
    name = a_pump(page)
    opened(page, plant, f"/machines/{name}")
    page.route("**/predictions?*", lambda route: None)
    with page.expect_request(re.compile(r"/predictions\?")):
        page.get_by_role("button", name="6 h", exact=True).click()
    with page.expect_event("requestfailed", lambda request: "/predictions" in request.url):
        page.get_by_role("link", name="Plant", exact=True).click()
    expect(page.locator("tr.machine").first).to_be_visible()


def test_failed_language_leaves_the_page_as_it_is(page: Page, plant: Platform, watched: Watched) -> None:
    """A language that cannot be loaded is reported in the present one."""
    watched.expected = ["ERR_FAILED"]
    opened(page, plant)
    page.route("**/text/es.json", lambda route: route.abort())
    page.locator("[data-choice=language]").select_option("es")
    expect(page.get_by_text("The platform does not respond.")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("link", name="Alarms").first).to_be_visible()
