"""Alarms as an operator works on them."""

import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform, watching

RULES = """
rules:
  - {name: hot, text: Too hot, priority: urgent, sensor: {sensor: heat, above: 80, deadband: 5}}
"""


@pytest.fixture(scope="module")
def ovens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with watching(tmp_path_factory.mktemp("ovens"), RULES) as running:
        yield running


def heat(platform: Platform, machine: str, value: float, ago: float = 0) -> None:
    reading = {"machine_id": machine, "sensor": "heat", "timestamp": time.time() - ago, "value": value}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200


def test_empty_console_points_to_import_and_has_no_alarm(page: Page, ovens: Platform) -> None:
    """Without machines the console points to `aurum import` and lists no alarm."""
    opened(page, ovens)
    expect(page.get_by_role("heading", name="No machines yet")).to_be_visible()
    expect(page.get_by_text("aurum import")).to_be_visible()
    assert violations(page) == []
    opened(page, ovens, "/alarms")
    expect(page.get_by_text("No open alarms.")).to_be_visible()


def test_pages_show_no_null_without_optional_features(page: Page, ovens: Platform) -> None:
    """No page shows null, undefined or NaN when faults, predictions and links are disabled."""
    heat(ovens, "stove", 20)
    for path in ("/", "/machines/stove", "/alarms", "/platform"):
        opened(page, ovens, path)
        if path == "/platform":
            expect(page.locator("[data-instance=ingestion]")).to_be_visible()
        text = page.locator("body").inner_text()
        assert not re.search(r"\b(null|undefined|NaN)\b|\[object", text), path


def test_alarm_is_acknowledged_shelved_and_kept_in_history(page: Page, ovens: Platform) -> None:
    """An operator acknowledges, shelves and unshelves an alarm, and the history lists each step."""
    opened(page, ovens, "/alarms")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Your name").press("Tab")
    heat(ovens, "oven", 95)
    row = page.locator("[data-alarm='oven~hot']")
    expect(row).to_have_attribute("data-state", "unacknowledged")
    expect(row).to_contain_text("Too hot")
    expect(page.locator("nav .count")).to_have_text("1")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_have_attribute("data-state", "acknowledged")
    expect(row).to_contain_text("Ada")
    expect(page.locator("nav .count")).to_be_hidden()
    row.get_by_role("button", name="Shelve").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Duration").select_option("15")
    dialog.get_by_label("Reason").fill("the probe is being changed")
    assert violations(page) == []
    dialog.get_by_role("button", name="Shelve").click()
    expect(dialog).to_have_count(0)
    expect(row).to_have_count(0)
    page.get_by_role("button", name=re.compile("Shelved")).click()
    expect(row).to_contain_text("until")
    expect(row).to_contain_text("the probe is being changed")
    row.get_by_role("button", name="Unshelve").click()
    expect(row).to_have_count(0)
    page.get_by_role("button", name=re.compile("History")).click()
    journal = page.get_by_role("table", name="History").locator("tbody tr")
    expect(journal).to_have_count(4)
    expect(journal.first).to_contain_text("unshelved")
    expect(journal.first).to_contain_text("Ada")
    expect(journal.last).to_contain_text("raised")
    assert violations(page) == []


def test_refused_action_is_explained_at_its_alarm(page: Page, ovens: Platform, watched: Watched) -> None:
    """A refused acknowledgement shows the reason in the alarm's row until an action succeeds."""
    watched.expected = ["403"]
    problem = '{"type": "urn:aurumai:problem:permission-denied", "detail": "viewer lacks the role operator for this"}'
    refusal = {"status": 403, "content_type": "application/problem+json", "body": problem}
    page.route("**/boiler~hot/ack", lambda route: route.fulfill(**refusal))
    opened(page, ovens, "/alarms")
    heat(ovens, "boiler", 95)
    row = page.locator("[data-alarm='boiler~hot']")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_contain_text("You do not have permission for this.")
    heat(ovens, "dryer", 95)  # the list is made again
    expect(page.locator("[data-alarm='dryer~hot']")).to_be_visible()
    expect(row).to_contain_text("You do not have permission for this.")
    assert violations(page) == []
    page.unroute("**/boiler~hot/ack")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_have_attribute("data-state", "acknowledged")
    expect(row.locator(".problem")).to_be_hidden()
    for machine in ("boiler", "dryer"):
        heat(ovens, machine, 20)
        assert http("POST", f"{ovens.api}/api/alarms/{machine}~hot/ack").status in (200, 409)


def test_alarm_acknowledged_elsewhere_updates_on_open_page(page: Page, ovens: Platform) -> None:
    """An alarm acknowledged through the API shows as acknowledged, with the name, on an open page."""
    heat(ovens, "kiln", 95)
    opened(page, ovens, "/alarms")
    row = page.locator("[data-alarm='kiln~hot']")
    expect(row).to_have_attribute("data-state", "unacknowledged")
    assert http("POST", f"{ovens.api}/api/alarms/kiln~hot/ack", {"by": "Bo"}).status == 200
    expect(row).to_have_attribute("data-state", "acknowledged")
    expect(row).to_contain_text("Bo")


def test_alarm_flood_shows_banner_and_sound_is_off(page: Page, ovens: Platform) -> None:
    """An alarm flood shows a banner that links to the alarms; sound is off until switched on."""
    opened(page, ovens)
    expect(page.locator("[data-choice=sound]")).to_have_attribute("aria-pressed", "false")
    for number in range(12):
        heat(ovens, f"line-{number}", 99)
    expect(page.get_by_text("Alarm flood")).to_be_visible()
    page.get_by_role("link", name="Show alarms").click()
    expect(page.locator("tr.alarm[data-state=unacknowledged]")).to_have_count(12)
    page.locator("[data-choice=sound]").click()
    expect(page.locator("[data-choice=sound]")).to_have_attribute("aria-pressed", "true")
    assert violations(page) == []


def test_silent_machine_has_no_data_on_open_page(page: Page, ovens: Platform) -> None:
    """A machine that stops reporting turns from running to "no data since" on an open page."""
    heat(ovens, "mill", 20, ago=50)
    opened(page, ovens)
    badge = page.locator("tr.machine", has_text="mill").locator(".badge")
    expect(badge).to_have_text("running")
    expect(badge).to_have_text(re.compile(r"no data since \d\d?:\d\d"))
    expect(badge).to_have_attribute("data-state", "stale")
