"""The page of a machine suggests a new life, and a person answers with one click."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import opened, violations
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.unrecorded_overhaul import MACHINE, send_two_lives


@pytest.fixture
def overhauled(tmp_path: Path) -> Iterator[Platform]:
    running = Platform(tmp_path, extra={"AURUM_FEATURE_PREDICTIVE": "false"})
    for service in ("ingestion", "api"):
        running.start(service)
    send_two_lives(running)
    yield running
    running.stop()


def test_person_answers_a_suggested_life_on_the_page(page: Page, overhauled: Platform) -> None:
    """The card tells the stop and the sensors. Each answer is a maintenance record, which ends the suggestion."""
    opened(page, overhauled, f"/machines/{MACHINE}")
    card = page.locator("[data-card=lives]")
    expect(card.locator("li")).to_have_count(1)
    expect(card.locator("li")).to_contain_text("at the beginning")
    assert violations(page) == []
    card.get_by_role("button", name="No").click()
    expect(card).to_contain_text("No stop of the last 90 days suggests a new life.")
    records = page.locator("[data-card=maintenance] li")
    expect(records).to_contain_text("inspection No new life began at this stop")
    records.get_by_role("button").click()
    card.get_by_role("button", name="Yes, it was overhauled").click()
    expect(records).to_contain_text("overhaul Overhaul, confirmed")
    expect(card.locator("li")).to_have_count(0)
    (record,) = http("GET", f"{overhauled.api}/api/machines/{MACHINE}/maintenance").json["items"]
    assert (record["kind"], record["from"] < record["to"]) == ("overhaul", True)
