"""The alarm rules in the console: edited by engineers, shown to everybody."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

RULES = """
rules:
  - {name: hot, text: Too hot, priority: high, machine_types: [oven], sensor: {sensor: heat, above: 80, deadband: 5}}
  - {name: silent, text: No readings, stale: {after_seconds: 3600}}
"""
HOUR = 3600


@pytest.fixture
def oven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with watching(tmp_path_factory.mktemp("oven"), RULES) as running:
        machine = {"machine_id": "oven-1", "machine_type": "oven", "site": "north"}
        assert http("POST", f"{running.api}/api/machines", machine).status == 201
        values = [(3 * HOUR - each * 600, 75 if each % 5 == 2 else 60) for each in range(15)]  # beyond 70 three times
        readings = [
            {"machine_id": "oven-1", "sensor": "heat", "timestamp": time.time() - ago, "value": value}
            for ago, value in [*values, (1, 60)]
        ]
        assert http("POST", f"{running.api}/api/readings", {"readings": readings}).status == 200
        wait_for(lambda: rules(running), 20, "the rules")
        wait_for(lambda: sensors(running, "oven-1") == ["heat"], 20, "the sensor in the view of the API")
        yield running


def rules(platform: Platform) -> dict[str, Any]:
    answer = http("GET", f"{platform.api}/api/alarms/rules")
    return answer.json if answer.status == 200 else {}


def sensors(platform: Platform, machine_id: str) -> list[str]:
    """Returns the sensors of a machine that the API knows. Its view follows ingestion with a short delay."""
    answer = http("GET", f"{platform.api}/api/machines/{machine_id}")
    return list(answer.json["sensors"]) if answer.status == 200 else []


def rule(page: Page, name: str) -> Locator:
    return page.locator(f"tr[data-rule={name}]")


def fields(page: Page, name: str) -> Locator:
    return page.locator(f"[data-field={name}]")


def test_engineer_edits_a_rule_and_takes_it_back(page: Page, oven: Platform, watched: Watched) -> None:
    """A rule is previewed, corrected where it is marked, saved by keyboard, and restored from the history."""
    opened(page, oven, "/alarms?view=rules")
    expect(rule(page, "hot")).to_contain_text("Heat above 80, deadband 5")
    expect(page.get_by_text("The rules of the file are in force.")).to_be_visible()
    expect(page.get_by_text("No rule has been changed here yet.")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Your name").press("Tab")
    rule(page, "hot").get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog")
    expect(fields(page, "limit")).to_have_value("80")
    expect(fields(page, "over")).to_be_hidden()
    fields(page, "limit").fill("70")
    fields(page, "text").fill("Far too hot")
    page.get_by_role("button", name="Preview with the last week").click()
    expect(dialog.get_by_text("Would have raised 3 alarms in the last week.")).to_be_visible()
    expect(dialog.get_by_text("oven-1: 3, last on")).to_be_visible()
    assert violations(page) == []

    watched.expected.append("422")
    fields(page, "types").fill("x" * 9000)
    fields(page, "reason").fill("tuning")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("has more than 8000 bytes")).to_be_visible()
    fields(page, "types").fill("oven")
    fields(page, "sensor").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(fields(page, "sensor")).to_be_focused()
    fields(page, "sensor").fill("heat")
    fields(page, "reason").focus()
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(rule(page, "hot")).to_contain_text("Heat above 70, deadband 5")
    expect(page.get_by_text("Revision 1 is in force, saved by Ada")).to_be_visible()
    revision = page.locator("tr[data-revision='1']")
    expect(revision).to_contain_text("hot changed: sensor, upper limit 80 → 70; text Too hot → Far too hot")
    expect(revision).to_contain_text("tuning")
    assert violations(page) == []
    assert rules(oven)["rules"][0]["sensor"]["above"] == 70

    rule(page, "silent").get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_label("Reason for the change").fill("not needed")
    page.keyboard.press("Enter")
    expect(rule(page, "silent")).to_have_count(0)
    revision.get_by_role("button", name="Restore").click()
    page.get_by_role("dialog").get_by_label("Reason for the change").fill("needed after all")
    page.keyboard.press("Enter")
    expect(rule(page, "silent")).to_be_visible()
    expect(page.locator("tr[data-revision='3']")).to_contain_text("Revision 1 restored")
    page.get_by_role("button", name="Use the file").click()
    page.get_by_role("dialog").get_by_label("Reason for the change").fill("as delivered")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The rules of the file are in force.")).to_be_visible()
    assert [each["text"] for each in rules(oven)["rules"]] == ["Too hot", "No readings"]


def test_rule_errors_are_shown_at_their_fields(page: Page, oven: Platform, watched: Watched) -> None:
    """What the API refuses is marked at the field; what another engineer stored meanwhile is not overwritten."""
    watched.expected += ["422", "409"]
    opened(page, oven, "/alarms?view=rules")
    page.get_by_role("button", name="Add a rule").click()
    dialog = page.get_by_role("dialog")
    fields(page, "name").fill("hot")
    dialog.get_by_role("button", name="Save").click()
    expect(fields(page, "name")).to_be_focused()  # the name is taken
    fields(page, "name").fill("slow")
    fields(page, "text").fill("Too slow")
    fields(page, "condition").select_option("stale")
    expect(fields(page, "sensor")).to_be_hidden()
    fields(page, "limit").fill("0")
    fields(page, "reason").fill("new")
    dialog.get_by_role("button", name="Save").click()
    expect(fields(page, "limit")).to_have_attribute("aria-invalid", "true")
    expect(fields(page, "limit")).to_be_focused()
    expect(page.locator("#rule-limit-problem")).to_contain_text("greater than 0")
    assert violations(page) == []
    other = {"revision": 0, "rules": [], "reason": "away with them", "by": "Bo"}
    assert http("PUT", f"{oven.api}/api/alarms/rules", other).status == 200
    fields(page, "limit").fill("60")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("Someone else (Bo) has changed the rules meanwhile.")).to_be_visible()
    assert rules(oven)["rules"] == []


def test_rules_fit_a_phone_and_speak_spanish(context: BrowserContext, oven: Platform, watched: Watched) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_init_script("localStorage['aurum.language'] = 'es'")
    opened(page, oven, "/alarms?view=rules")
    expect(page.get_by_text("Se aplican las reglas del archivo.")).to_be_visible()
    assert violations(page) == []
    rule(page, "hot").get_by_role("button", name="Editar").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["width"] <= 390


def test_viewer_sees_rules_without_buttons(context: BrowserContext, page: Page, oven: Platform) -> None:
    key, record = make_key("viewer", ("viewer",))
    write_keys(oven.folder / "keys.yaml", KeyFile(keys=(record,)))
    oven.extra["AURUM_AUTH_KEYS_FILE"] = str(oven.folder / "keys.yaml")
    oven.processes["api"].kill()
    oven.restart("api")
    context.set_extra_http_headers({"X-API-Key": key})
    opened(page, oven, "/alarms?view=rules")
    expect(rule(page, "hot")).to_contain_text("Heat above 80")
    expect(page.locator("section.rules").get_by_role("button")).to_have_count(0)
