"""Alarms that can be trusted: what operators see of replaced rules and of values that chatter."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform, watching

RULES = """
rules:
  - {name: hot, text: Too hot, priority: urgent, sensor: {sensor: oil_temperature_c, above: 80}}
  - {name: wet, text: Too wet, priority: high, sensor: {sensor: damp, above: 3}}
"""


@pytest.fixture(scope="module")
def kilns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with watching(tmp_path_factory.mktemp("kilns"), RULES) as running:
        yield running


def send(platform: Platform, machine: str, sensor: str, value: float) -> None:
    reading = {"machine_id": machine, "sensor": sensor, "timestamp": time.time(), "value": value}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200


def test_chattering_value_is_one_alarm_with_its_limit(page: Page, kilns: Platform) -> None:
    """An alarm raised again and again is one row that says so, with value, unit and limit; the history has texts."""
    opened(page, kilns, "/alarms")
    row = page.locator("[data-alarm='kiln~hot']")
    for turn in range(3):
        send(kilns, "kiln", "oil_temperature_c", 95)
        expect(row).to_have_attribute("data-state", "unacknowledged")
        if turn < 2:
            send(kilns, "kiln", "oil_temperature_c", 60)
            expect(row).to_have_attribute("data-state", "returned")
    expect(row).to_contain_text("chattering")
    expect(row).to_contain_text("95 °C, limit 80 °C, now 95 °C")
    send(kilns, "kiln", "oil_temperature_c", 60)
    expect(row).to_contain_text("now 60 °C")
    expect(row).to_have_attribute("data-state", "unacknowledged")  # it stays until the value has been well for a while
    expect(page.locator("tr.alarm")).to_have_count(1)
    assert violations(page) == []
    page.get_by_role("button", name="History").click()
    history = page.get_by_role("table", name="History")
    expect(history.locator("tbody tr")).to_have_count(5)
    expect(history.locator("tbody tr").first).to_contain_text("Too hot")


def test_mistaken_requests_of_a_page_are_explained(page: Page, kilns: Platform, watched: Watched) -> None:
    """A page that uses a wrong method or parameter gets an answer that names it, not an internal error."""
    watched.expected = ["405", "422"]
    opened(page, kilns)
    ask = "async ([method, path]) => { const a = await fetch(path, {method}); return [a.status, await a.text()]; }"
    status, _ = page.evaluate(ask, ["DELETE", "/api/alarms"])
    assert status == 405
    status, text = page.evaluate(ask, ["GET", "/api/alarms?colour=red"])
    assert status == 422
    assert "colour" in text


def test_removed_rule_closes_its_alarm_on_an_open_page(page: Page, kilns: Platform) -> None:
    """An alarm of a removed rule keeps text and priority, and its history tells why it was closed."""
    opened(page, kilns, "/alarms")
    send(kilns, "silo", "damp", 9)
    row = page.locator("[data-alarm='silo~wet']")
    expect(row).to_have_attribute("data-state", "unacknowledged")
    replaced = kilns.folder / "rules.new"
    replaced.write_text("rules: [{name: dry, text: Too dry, sensor: {sensor: damp, below: 0}}]")
    replaced.replace(kilns.folder / "rules.yaml")
    expect(row).to_have_attribute("data-state", "returned", timeout=30_000)
    expect(row).to_contain_text("Too wet")
    expect(row).to_have_attribute("data-priority", "high")
    page.get_by_role("button", name="History").click()
    closed = page.get_by_role("table", name="History").locator("tbody tr", has_text="silo").first
    expect(closed).to_contain_text("the rule was removed")
    expect(closed).to_contain_text("Too wet")
