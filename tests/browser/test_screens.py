"""Screens of every size, addresses that restore what was chosen, and charts that tell where the limits are."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import MACHINES, a_pump, opened, violations
from tests.support.http import http
from tests.support.platform import Platform

PHONE = {"width": 390, "height": 844}
ZOOMED = {"width": 683, "height": 430}  # a screen of 1366 by 860 pixels at 200 %
WALL = {"width": 3840, "height": 2160}
MOST_HEADER = 64  # px


def sideways(page: Page) -> int:
    """Pixels by which the page is wider than the screen."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("size", [PHONE, ZOOMED], ids=["phone", "zoom"])
def test_first_machine_is_seen_on_a_small_screen(page: Page, plant: Platform, size: dict[str, int]) -> None:
    """Phones and pages at 200 % have a low header, cards in place of a cut-off table, and nothing beyond the edge."""
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    opened(page, plant)
    a_pump(page)
    header = page.locator("body > header").bounding_box()
    assert header is not None
    assert header["height"] <= MOST_HEADER
    card = page.locator("tr.machine").first.bounding_box()
    assert card is not None
    assert card["y"] + card["height"] <= size["height"]
    assert sideways(page) <= 0
    expect(page.locator("tr.machine").first.locator(".badge")).to_be_in_viewport(ratio=1)
    assert violations(page) == []


def test_choices_of_a_phone_are_in_menus(page: Page, plant: Platform) -> None:
    page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
    opened(page, plant)
    theme = page.locator("[data-choice=theme]")
    expect(theme).to_be_hidden()
    page.get_by_role("button", name="Settings").click()
    expect(theme).to_be_visible()
    theme.select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Settings").click()
    expect(theme).to_be_hidden()
    page.get_by_role("button", name="Filters").click()
    page.get_by_label("Sort by").select_option("machine")
    names = page.locator("tr.machine th")
    expect(names.first).to_have_text("pump-001")
    page.get_by_label("Sort by").select_option("life")
    assert sideways(page) <= 0


def test_phone_scrolls_the_page_through_all_machines(page: Page, plant: Platform) -> None:
    page.set_viewport_size({"width": PHONE["width"], "height": 480})
    opened(page, plant)
    a_pump(page)
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.locator("tr.machine").last).to_be_in_viewport()
    expect(page.locator("tr.machine").last).to_have_attribute("aria-rowindex", str(MACHINES + 1))


def test_wall_screen_uses_its_width(page: Page, plant: Platform) -> None:
    page.set_viewport_size({"width": WALL["width"], "height": WALL["height"]})
    opened(page, plant)
    name = a_pump(page)
    table = page.locator(".machines").bounding_box()
    assert table is not None
    assert table["width"] > 0.95 * WALL["width"]
    opened(page, plant, f"/machines/{name}")
    expect(page.locator("figure[data-sensor]").nth(5)).to_be_visible()
    tops = {page.locator("figure[data-sensor]").nth(number).bounding_box()["y"] for number in range(6)}  # type: ignore[index]
    assert len(tops) == 1, "six charts beside each other"


def test_filters_are_in_the_address(page: Page, plant: Platform) -> None:
    """A link restores search, filters and order; the way back from a machine leads to them; tiles lead to what they
    count."""
    opened(page, plant)
    name = a_pump(page)
    page.get_by_label("Search").fill(name)
    expect(page).to_have_url(f"{plant.api}/?search={name}")
    expect(page.locator("[data-tile=machines] b")).to_have_text("1")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("tr.machine")).to_have_count(1)
    expect(page.get_by_label("Search")).to_have_value(name)
    page.locator("tr.machine a").click()
    page.get_by_role("link", name="← Plant").click()
    expect(page).to_have_url(f"{plant.api}/?search={name}")
    expect(page.locator("tr.machine")).to_have_count(1)
    opened(page, plant, "/?type=pump&sort=machine&order=descending")
    expect(page.get_by_role("columnheader", name="Machine", exact=True)).to_have_attribute("aria-sort", "descending")
    expect(page.locator("label", has_text=re.compile("^Type")).locator("select")).to_have_value("pump")
    page.locator("[data-tile=alarms]").click()
    expect(page).to_have_url(re.compile("/alarms"))
    page.go_back()
    expect(page.locator("label", has_text=re.compile("^Type")).locator("select")).to_have_value("pump")


def test_charts_tell_limits_and_latest_values(page: Page, plant: Platform) -> None:
    """The chart of the risk has a fixed scale and the limit of the alarm, a signal of two states is a strip, and each
    legend tells the latest value."""
    opened(page, plant)
    name = a_pump(page)
    limits = http("GET", f"{plant.api}/api/machines/{name}/alarm-limits").json["items"]
    assert {"risk", "sensor"} <= {limit["quantity"] for limit in limits}
    opened(page, plant, f"/machines/{name}")
    signal, vibration = (page.locator(f"[data-sensor={sensor}]") for sensor in ("fault", "vibration_mm_s"))
    expect(vibration.locator(".u-legend")).to_contain_text(re.compile(r"Vibration\s*\d[\d.]* mm/s"))
    expect(signal.locator(".u-legend")).to_contain_text(re.compile(r"Fault\s*[01]"))
    strip, whole = (each.locator("canvas").bounding_box() for each in (signal, vibration))
    assert strip is not None
    assert whole is not None
    assert strip["height"] < 0.6 * whole["height"]
    assert red(page, "[data-chart=risk]") > 100, "the risk has the line of its limit"
    assert red(page, "[data-sensor=bearing_temperature_c]") == 0, "a rule of its rate has no line"


def red(page: Page, figure: str) -> int:
    """Pixels of a chart in the colour of limits, left of the middle, where there is no line of predictions."""
    return int(
        page.locator(f"{figure} canvas").evaluate(
            """(each) => {
                const { data } = each.getContext("2d").getImageData(0, 0, each.width / 2, each.height);
                let count = 0;
                for (let i = 0; i < data.length; i += 4)
                    count += data[i + 3] > 150 && data[i] > 120 && data[i + 1] < 60 && data[i + 2] < 70;
                return count;
            }"""
        )
    )


def test_plant_shows_the_trend_of_each_machine(page: Page, plant: Platform) -> None:
    """The sensor that an alarm rule limits is drawn over the last day."""
    opened(page, plant)
    name, at = a_pump(page), time.time()
    readings = [
        {"machine_id": name, "sensor": "vibration_mm_s", "timestamp": at - 3600 * ago, "value": 2.0 + ago % 3}
        for ago in range(2, 22)
    ]
    assert http("POST", f"{plant.api}/api/readings", {"readings": readings}).status == 200
    opened(page, plant, f"/?search={name}")
    trend = page.locator("tr.machine .trend")
    expect(trend.locator("svg")).to_have_attribute("aria-label", re.compile(r"Vibration, last 24 h: 2 . .* mm/s"))
    expect(trend.locator("polyline")).to_have_count(1)
    expect(page.locator("tr.machine .seen")).to_be_in_viewport(ratio=1)


def test_machines_are_compared_in_one_chart(page: Page, plant: Platform) -> None:
    """The link at a chart leads to a comparison, to which machines are added; its address restores it."""
    opened(page, plant)
    name = a_pump(page)
    other = "pump-001" if name != "pump-001" else "pump-002"
    opened(page, plant, f"/machines/{name}")
    page.get_by_role("link", name="Compare Vibration with other machines").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare machines")
    canvas = page.locator(".compared canvas")
    expect(canvas).to_have_attribute("aria-label", re.compile(rf"{name}: \d.* mm/s"))
    page.get_by_label("Machine", exact=True).fill(other)
    page.get_by_role("button", name="Add").click()
    expect(canvas).to_have_attribute("aria-label", re.compile(rf"{name}: .*; {other}: \d.* mm/s"))
    expect(page.locator(".compared .u-legend")).to_contain_text(other)
    assert violations(page) == []
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(canvas).to_have_attribute("aria-label", re.compile(rf"{name}: .*; {other}: "))
    page.get_by_role("button", name=f"Remove {name}").click()
    expect(canvas).to_have_attribute("aria-label", re.compile(rf"^{other}: "))
    page.get_by_label("Machine", exact=True).fill("no-such-machine")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("There is no machine no-such-machine.")).to_be_visible()


def test_wall_screen_shows_only_the_plant(page: Page, plant: Platform) -> None:
    """The mode for a wall has large text and no controls; the browser remembers it, and Escape ends it."""
    page.set_viewport_size({"width": WALL["width"], "height": WALL["height"]})
    opened(page, plant)
    a_pump(page)
    page.get_by_role("button", name="Wall screen").click()
    expect(page.locator("body > header")).to_be_hidden()
    expect(page.locator("tr.machine").last).to_be_in_viewport()
    row = page.locator("tr.machine").first.bounding_box()
    assert row is not None
    assert row["height"] > 90
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("body > header")).to_be_hidden()
    assert violations(page) == []
    page.keyboard.press("Escape")
    expect(page.locator("body > header")).to_be_visible()
