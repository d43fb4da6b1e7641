"""Machines whose data is cut off: one alarm for those of a gateway, and no state or prediction that looks present."""

import re
import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Watched, a_pump, opened, violations
from tests.support.gateway_machines import SILENCE_RULES, machines_behind
from tests.support.http import http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

MACHINES = [f"press-{number}" for number in range(4)]
STUCK = 30_000  # ms until a gateway that hangs is noticed


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A plant of which some machines send through the gateway hall-3."""
    with watching(tmp_path_factory.mktemp("hall"), SILENCE_RULES) as running:
        running.extra["AURUM_EDGE_NAME"] = "hall-3"
        running.start("edge")
        yield running


def test_silent_gateway_is_one_alarm_with_its_machines(page: Page, hall: Platform) -> None:
    """Silent machines of a gateway are one alarm on both pages, whose machines unfold; theirs are suppressed."""
    with machines_behind(hall.port("edge"), "one", MACHINES) as devices:
        opened(page, hall)
        expect(page.locator("tr.machine")).to_have_count(4)
        devices.sending.clear()
        board = page.locator("details.group")
        expect(board).to_contain_text(re.compile(r"Gateway hall-3: 4 machines silent since \d\d?:\d\d"))
        expect(board).to_contain_text("the gateway is connected, but sends nothing")
        board.locator("summary").click()
        expect(board.get_by_role("link")).to_have_text(MACHINES)
        assert violations(page) == []
        opened(page, hall, "/alarms")
        row = page.locator("tr.alarm")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("Gateway hall-3")
        expect(page.locator("nav .count")).to_have_text("1")
        row.locator("summary").click()
        expect(row.get_by_role("link")).to_have_text(MACHINES)
        row.get_by_role("button", name="Acknowledge").click()
        expect(row).to_have_attribute("data-state", "acknowledged")
        expect(row.get_by_role("link")).to_have_text(MACHINES)  # they stay unfolded
        assert violations(page) == []
        page.get_by_role("button", name="Suppressed (4)").click()
        expect(page.locator("tr.alarm").first).to_contain_text("part of the alarm of its gateway or site")
        page.get_by_role("button", name="History").click()
        raised = page.get_by_role("table", name="History").locator("tr", has_text="Gateway hall-3").last
        expect(raised).to_contain_text("machines send no readings")
        page.get_by_role("button", name="Open", exact=False).first.click()
        devices.sending.extend(MACHINES)
        expect(page.get_by_text("No open alarms.")).to_be_visible(timeout=30_000)


def test_machine_that_is_cut_off_is_not_shown_as_running(page: Page, hall: Platform, watched: Watched) -> None:
    """A machine whose data cannot arrive has no data since a time, at once; it runs again when data arrives."""
    watched.expected = [
        "ERR_CONNECTION_REFUSED",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "ERR_CONNECTION_RESET",
        "status of",
    ]
    with machines_behind(hall.port("edge"), "two", MACHINES):
        opened(page, hall)
        badge = page.locator("tr.machine", has_text="press-0").locator(".badge")
        expect(badge).to_have_text("running")
        hall.processes["api"].kill()
        expect(badge).to_have_text(re.compile(r"no data since \d\d?:\d\d"))
        hall.restart("api")
        expect(badge).to_have_text("running", timeout=30_000)


def test_gateway_that_hangs_is_in_the_banner(page: Page, hall: Platform) -> None:
    """A gateway that stays connected and does not run is named in the banner, with the time, until it runs again."""
    opened(page, hall)
    wait_for(lambda: http("GET", f"{hall.api}/api/platform").status == 200, 30, "the API answers")
    time.sleep(3)  # the gateway is asked
    hall.processes["edge"].popen.send_signal(signal.SIGSTOP)
    banner = page.locator(".banner").filter(has_text="hall-3")
    try:
        expect(banner).to_contain_text(
            re.compile(r"Edge gateway hall-3 does not respond since \d\d?:\d\d"), timeout=STUCK
        )
        assert violations(page) == []
    finally:
        hall.processes["edge"].popen.send_signal(signal.SIGCONT)
    expect(banner).to_be_hidden(timeout=STUCK)


def test_prediction_shows_its_age_and_its_origin(page: Page, plant: Platform, watched: Watched) -> None:
    """A machine page tells how old the prediction is, and the values of a rule are named as such."""
    watched.expected = ["status of"]
    registration = {"machine_id": "fan-1", "machine_type": "fan"}
    assert http("POST", f"{plant.api}/api/machines", registration).status in (200, 201, 409)
    readings = [
        {"machine_id": "fan-1", "sensor": "vibration_mm_s", "timestamp": time.time() - ago, "value": 2.0 + ago % 2}
        for ago in range(100)
    ]
    assert http("POST", f"{plant.api}/api/readings", {"readings": readings}).status == 200
    opened(page, plant)
    pump = a_pump(page)
    opened(page, plant, f"/machines/{pump}")
    head = page.locator(".machine-head")
    expect(head).to_contain_text(re.compile(r"predicted (just now|\d+ s ago)"), timeout=60_000)
    opened(page, plant, "/machines/fan-1")
    expect(head).to_contain_text("rule-based", timeout=60_000)
    expect(head).to_contain_text(re.compile(r"predicted (just now|\d+ s ago)"))
