"""A console where callers are asked who they are."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, str]]:
    folder = tmp_path_factory.mktemp("closed")
    key, record = make_key("Ada", ("operator",))
    write_keys(folder / "keys.yaml", KeyFile(keys=(record,)))
    extra = {"AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"), "AURUM_FEATURE_PREDICTIVE": "false"}
    running = Platform(folder, extra=extra)
    running.start("ingestion")
    running.start("api")
    yield running, key
    running.stop()


def test_user_signs_in_with_key_and_out_again(page: Page, closed: tuple[Platform, str], watched: Watched) -> None:
    """A user signs in with an API key, stays signed in after a reload, and signs out again after a failure."""
    platform, key = closed
    watched.expected = ["401", "503"]  # the latter until the alarms are read
    opened(page, platform, "/alarms")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert violations(page) == []
    page.get_by_label("API key or token").fill("aurum_nothing")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("Key or token not recognised")).to_be_visible()
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Sign in").click()
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
