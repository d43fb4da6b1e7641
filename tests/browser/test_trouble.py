"""What a console shows when something breaks, and that it heals by itself."""

import re
import time

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watched, a_pump, opened, violations
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

_PUMP = "pump-001"  # of the simulator; other tests add machines without a model
_LOST = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]


@pytest.fixture(autouse=True)
def recovered(plant: Platform) -> None:
    """Each test begins with closed breakers, whatever the test before broke: a page retries only after 30 s."""

    def explained() -> bool:
        path = f"{plant.api}/api/machines/{_PUMP}"
        return all(http("GET", f"{path}/{part}").status == 200 for part in ("explanation", "advice"))

    wait_for(explained, 60, "predictions are explained again")


def test_console_reconnects_after_api_is_killed(page: Page, plant: Platform, watched: Watched) -> None:
    """A killed API shows a lost-connection banner, and the console is live again after a restart."""
    opened(page, plant)
    a_pump(page)
    watched.expected = [*_LOST, "503", "status of 5"]
    plant.processes["api"].kill()
    expect(page.locator(".banner.bad")).to_contain_text("Connection lost")
    expect(page.locator(".connection")).to_have_text("Offline")
    expect(page.locator("tr.machine").first).to_be_visible()  # the last state stays
    assert violations(page) == []
    plant.restart("api")
    expect(page.locator(".connection")).to_have_text("Live", timeout=30_000)
    expect(page.locator(".banner.bad")).to_be_hidden()
    values = page.locator("tr.machine .values").first
    before = values.inner_text()
    expect(values).not_to_have_text(before)


def test_killed_service_shows_down_on_map_and_recovers(page: Page, plant: Platform, watched: Watched) -> None:
    """A killed prediction service shows as down on the map, and as well after its restart."""
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    box = page.locator("[data-service=prediction]")
    expect(box).to_have_attribute("data-state", "well", timeout=30_000)
    plant.processes["prediction"].kill()
    try:
        expect(box).to_have_attribute("data-state", "down")
        expect(page.locator("[data-instance=prediction]")).to_contain_text("not reachable")
        expect(page.locator(".banner.warn").filter(has_text="prediction")).to_be_visible(timeout=30_000)
    finally:
        plant.restart("prediction")
    expect(box).to_have_attribute("data-state", "well", timeout=60_000)
    expect(page.locator(".banner").filter(has_text="prediction")).to_be_hidden(timeout=30_000)


def test_delay_fault_is_injected_traced_and_cleared(page: Page, plant: Platform, watched: Watched) -> None:
    """The console injects a delay, shows the delayed request's spans, and clears the fault."""
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    page.locator("[data-fault=prediction-slow]").click()
    expect(page.locator(".happened")).to_contain_text("prediction answers late")
    machine = _PUMP
    answer = http("POST", f"{plant.api}/api/machines/{machine}/predict").json
    assert not answer["degraded"]
    trace = page.locator(f"[data-trace='{answer['trace_id']}']")
    expect(trace).to_be_visible(timeout=20_000)
    trace.click()
    rows = page.locator(".waterfall tbody tr")
    expect(page.locator(".waterfall tr[data-service=prediction]").first).to_be_visible(timeout=15_000)
    assert rows.count() >= 3
    expect(page.locator("[data-instance=prediction]")).to_contain_text("1 injected fault")
    page.get_by_role("row", name=re.compile("^prediction Delay")).get_by_role("button", name="Clear").click()
    expect(page.locator("[data-instance=prediction]")).not_to_contain_text("injected fault")

    def quick() -> bool:
        started = time.perf_counter()
        answer = http("POST", f"{plant.api}/api/machines/{machine}/predict")
        return answer.status == 200 and not answer.json["degraded"] and time.perf_counter() - started < 0.9

    wait_for(quick, 60, "predictions are quick again")


def test_open_breaker_is_shown_until_it_closes(page: Page, plant: Platform, watched: Watched) -> None:
    """The map shows the breaker to prediction as open while calls fail, and as closed afterwards."""
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    machine = _PUMP
    page.locator("[data-fault=prediction-fail]").click()
    expect(page.locator(".happened")).to_contain_text("prediction fails")
    try:
        for _ in range(20):
            http("POST", f"{plant.api}/api/machines/{machine}/predict")
        call = page.locator("[data-call=api-prediction]")
        expect(call).to_have_attribute("data-breaker", re.compile("open"))
    finally:
        http("DELETE", f"{plant.api}/api/platform/faults/prediction")
    expect(call).to_have_attribute("data-breaker", "closed", timeout=60_000)


def test_console_button_stops_a_service(page: Page, plant: Platform, watched: Watched) -> None:
    """The stop button ends prediction at its next call, and the map shows it as down."""
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    box = page.locator("[data-service=prediction]")
    expect(box).to_have_attribute("data-state", "well", timeout=30_000)
    page.locator("[data-fault=prediction-stop]").click()
    expect(page.locator(".happened")).to_contain_text("prediction stops at its next call")
    machine = _PUMP
    try:
        http("POST", f"{plant.api}/api/machines/{machine}/predict")
        wait_for(lambda: plant.processes["prediction"].popen.poll() is not None, 20, "the process has ended")
        expect(box).to_have_attribute("data-state", "down")
    finally:
        plant.processes["prediction"].kill()
        plant.restart("prediction")
    expect(box).to_have_attribute("data-state", "well", timeout=60_000)


def test_error_response_shows_in_its_own_card(page: Page, plant: Platform, watched: Watched) -> None:
    """An error of the advice endpoint shows in the advice card and leaves the factors intact."""
    watched.expected = ["503", "status of"]
    problem = '{"detail": "nobody knows at the moment"}'
    page.route(
        "**/api/machines/*/advice",
        lambda route: route.fulfill(status=503, content_type="application/problem+json", body=problem),
    )
    opened(page, plant)
    name = a_pump(page)
    opened(page, plant, f"/machines/{name}")
    expect(page.locator("[data-card=advice]")).to_contain_text("nobody knows at the moment")
    expect(page.locator("[data-card=why] li")).to_have_count(5)
