"""A console where callers are asked who they are."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform


@dataclass(frozen=True)
class Closed:
    """A platform that authenticates callers, and the keys of two of them."""

    platform: Platform
    operator: str
    viewer: str


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    folder = tmp_path_factory.mktemp("closed")
    key, operator = make_key("Ada", ("operator", "ingest"))
    viewing_key, viewer = make_key("Vera", ("viewer",))
    write_keys(folder / "keys.yaml", KeyFile(keys=(operator, viewer)))
    (folder / "rules.yaml").write_text(
        "rules: [{name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80}}]"
    )
    extra = {
        "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
        "AURUM_ALARM_RULES": str(folder / "rules.yaml"),
        "AURUM_FEATURE_PREDICTIVE": "false",
    }
    running = Platform(folder, extra=extra)
    for service in ("ingestion", "prediction", "api"):
        running.start(service)
    yield Closed(running, key, viewing_key)
    running.stop()


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_user_signs_in_with_key_and_out_again(page: Page, closed: Closed, watched: Watched) -> None:
    """A user signs in with an API key, stays signed in after a reload, and signs out again after a failure."""
    platform, key = closed.platform, closed.operator
    watched.expected = ["401", "503"]  # the latter until the alarms are read
    opened(page, platform, "/alarms")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert violations(page) == []
    sign_in(page, "aurum_nothing")
    expect(page.get_by_text("Key or token not recognised")).to_be_visible()
    sign_in(page, key)
    expect(page.get_by_role("heading", name="Alarms")).to_be_visible()
    expect(page.locator(".connection")).to_have_text("Live")
    assert key not in page.content()
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(page.get_by_role("heading", name="Alarms")).to_be_visible()
    page.route("**/api/session", lambda route: route.fulfill(status=503))
    page.get_by_role("button", name="Sign out key:Ada").click()
    expect(page.get_by_text("The platform reported an error (HTTP 503).")).to_be_visible()
    page.unroute("**/api/session")
    page.get_by_role("button", name="Sign out key:Ada").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert http("GET", f"{platform.api}/api/machines").status == 401


def test_viewer_has_no_buttons_that_are_refused(page: Page, closed: Closed, watched: Watched) -> None:
    """A viewer sees the alarm and no button for it; an operator handles it, and reads that it was done."""
    platform = closed.platform
    watched.expected = ["401", "503"]
    reading = {"machine_id": "oven", "sensor": "heat", "timestamp": time.time(), "value": 95.0}
    headers = {"X-API-Key": closed.operator}
    assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}, headers).status == 200
    opened(page, platform, "/alarms")
    sign_in(page, closed.viewer)
    row = page.locator("[data-alarm='oven~hot']")
    expect(row).to_contain_text("Too hot")
    expect(row.get_by_role("button")).to_have_count(0)
    page.goto(f"{platform.api}/machines/oven")
    expect(page.get_by_text("No maintenance")).to_be_visible()
    expect(page.get_by_role("button", name="Record")).to_have_count(0)
    page.get_by_role("button", name="Sign out key:Vera").click()
    sign_in(page, closed.operator)
    expect(page.get_by_role("button", name="Record")).to_have_count(1)
    page.goto(f"{platform.api}/alarms")
    row.get_by_role("button", name="Acknowledge").click()
    expect(row).to_have_attribute("data-state", "acknowledged")
    expect(page.get_by_role("status").filter(has_text="Acknowledged: oven, Too hot")).to_be_visible()
    assert violations(page) == []
