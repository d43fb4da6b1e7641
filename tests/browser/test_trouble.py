"""What a console shows when something breaks, and that it heals by itself."""

import re
import time

from playwright.sync_api import Page, expect

from tests.support.browser import Watched, a_pump, opened, violations
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

_LOST = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE"]


def test_a_killed_api_is_seen_and_caught_up_with(page: Page, plant: Platform, watched: Watched) -> None:
    opened(page, plant)
    a_pump(page)
    watched.expected = [*_LOST, "503", "status of 5"]
    plant.processes["api"].kill()
    expect(page.locator(".banner.bad")).to_contain_text("The connection is lost")
    expect(page.locator(".connection")).to_have_text("Offline")
    expect(page.locator("tr.machine").first).to_be_visible()  # the last state stays
    assert violations(page) == []
    plant.restart("api")
    expect(page.locator(".connection")).to_have_text("Live", timeout=30_000)
    expect(page.locator(".banner.bad")).to_be_hidden()
    values = page.locator("tr.machine .values").first
    before = values.inner_text()
    expect(values).not_to_have_text(before)


def test_a_killed_service_is_seen_on_the_map_and_heals(page: Page, plant: Platform, watched: Watched) -> None:
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


def test_a_slow_dependency_is_made_watched_and_healed(page: Page, plant: Platform, watched: Watched) -> None:
    """By the console's own buttons; the request that was slow is looked into without any other program."""
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    page.locator("[data-fault=prediction-slow]").click()
    expect(page.locator(".happened")).to_contain_text("prediction is slow")
    machine = http("GET", f"{plant.api}/api/machines?limit=1").json["items"][0]["machine_id"]
    answer = http("POST", f"{plant.api}/api/machines/{machine}/predict").json
    assert not answer["degraded"]
    trace = page.locator(f"[data-trace='{answer['trace_id']}']")
    expect(trace).to_be_visible(timeout=20_000)
    trace.click()
    rows = page.locator(".waterfall tbody tr")
    expect(page.locator(".waterfall tr[data-service=prediction]").first).to_be_visible(timeout=15_000)
    assert rows.count() >= 3
    expect(page.locator("[data-instance=prediction]")).to_contain_text("1 injected fault")
    page.get_by_role("row", name=re.compile("^prediction Slow")).get_by_role("button", name="Heal").click()
    expect(page.locator("[data-instance=prediction]")).not_to_contain_text("injected fault")

    def quick() -> bool:
        started = time.perf_counter()
        answer = http("POST", f"{plant.api}/api/machines/{machine}/predict")
        return answer.status == 200 and not answer.json["degraded"] and time.perf_counter() - started < 0.9

    wait_for(quick, 60, "predictions are quick again")


def test_an_open_breaker_is_shown(page: Page, plant: Platform, watched: Watched) -> None:
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    machine = http("GET", f"{plant.api}/api/machines?limit=1").json["items"][0]["machine_id"]
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


def test_a_service_is_stopped_by_a_button(page: Page, plant: Platform, watched: Watched) -> None:
    watched.expected = ["503", "status of 5"]
    opened(page, plant, "/platform")
    box = page.locator("[data-service=prediction]")
    expect(box).to_have_attribute("data-state", "well", timeout=30_000)
    page.locator("[data-fault=prediction-stop]").click()
    expect(page.locator(".happened")).to_contain_text("prediction ends at its next call")
    machine = http("GET", f"{plant.api}/api/machines?limit=1").json["items"][0]["machine_id"]
    try:
        http("POST", f"{plant.api}/api/machines/{machine}/predict")
        wait_for(lambda: plant.processes["prediction"].popen.poll() is not None, 20, "the process has ended")
        expect(box).to_have_attribute("data-state", "down")
    finally:
        plant.processes["prediction"].kill()
        plant.restart("prediction")
    expect(box).to_have_attribute("data-state", "well", timeout=60_000)


def test_an_answer_that_is_an_error_is_said_where_it_belongs(page: Page, plant: Platform, watched: Watched) -> None:
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
