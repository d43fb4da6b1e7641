"""Many alarms at a desk: found, selected, acknowledged and shelved together, by keyboard too."""

import datetime
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.support.browser import Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform, watching
from tests.support.waiting import wait_for

RULES = """
rules:
  - {name: hot, text: Too hot, priority: urgent, sensor: {sensor: heat, above: 80, deadband: 5}}
  - {name: fast, text: Too fast, priority: low, sensor: {sensor: speed, above: 80}}
"""
PLAN = """
meters: {}
lines:
  Line 1: [desk-00*]
"""
MACHINES = 150  # with two alarms each
ALARMS = 2 * MACHINES


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("hall")
    (folder / "plan.yaml").write_text(PLAN)
    settings = {"AURUM_SUSTAINABILITY_PLAN": str(folder / "plan.yaml")}
    with watching(folder, RULES, settings) as running:
        for number in range(MACHINES):
            machine = {"machine_id": name(number), "machine_type": "oven", "site": ("north", "south")[number % 2]}
            assert http("POST", f"{running.api}/api/machines", machine).status == 201
        readings = [
            {"machine_id": name(number), "sensor": sensor, "timestamp": time.time(), "value": 95}
            for number in range(MACHINES)
            for sensor in ("heat", "speed")
        ]
        assert http("POST", f"{running.api}/api/readings", {"readings": readings}).status == 200
        wait_for(lambda: len(alarms(running)) == ALARMS, 60, "all alarms")
        yield running


@pytest.fixture(autouse=True)
def unshelved(hall: Platform) -> None:
    """Ends the shelving of each alarm, so that each test begins with ALARMS open ones."""
    for alarm in alarms(hall, "&state=shelved"):
        assert http("POST", f"{hall.api}/api/alarms/{alarm['id']}/unshelve").status == 200


def name(number: int) -> str:
    return f"desk-{number:03}"


def alarms(platform: Platform, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = http("GET", f"{platform.api}/api/alarms?limit=1000{query}").json["items"]
    return found


def rows(page: Page) -> Locator:
    return page.locator("tr.alarm")


class Keyboard:
    """The keyboard of a page, which counts what the user does: a key, or a text that is typed as one."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.actions = 0

    def press(self, *keys: str) -> None:
        for key in keys:
            self.actions += 1
            self._page.keyboard.press(key)

    def type(self, text: str) -> None:
        self.actions += 1
        self._page.keyboard.type(text)

    def press_until(self, key: str, focused: Locator, most: int) -> None:
        """Presses a key until a control has the focus."""
        for _ in range(most):
            self.press(key)
            if focused.evaluate("each => each === document.activeElement"):
                return
        raise AssertionError(f"{focused} is not reached by {most} times {key}")


def test_300_alarms_are_handled_by_keyboard(page: Page, hall: Platform) -> None:
    """300 alarms are acknowledged with a reason, and half of them shelved, by at most 70 keys and texts."""
    opened(page, hall, "/alarms")
    expect(rows(page)).to_have_count(ALARMS)
    keyboard = Keyboard(page)
    skip = page.locator("body > .skip")
    keyboard.press_until("Tab", skip, 1)
    keyboard.press("Enter")
    keyboard.press_until("Tab", page.get_by_role("link", name="Skip to the list of alarms"), 2)
    keyboard.press("Enter", "Control+a")
    expect(page.get_by_text(f"{ALARMS} alarms selected")).to_be_visible()
    acknowledge = page.get_by_role("button", name=f"Acknowledge ({ALARMS})")
    keyboard.press_until("Shift+Tab", acknowledge, 12)
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Acknowledge {ALARMS} alarms")
    keyboard.type("power cut")
    keyboard.press("Enter")
    expect(page.get_by_text(f"{ALARMS} alarms acknowledged.")).to_be_visible()
    expect(page.locator("tr.alarm[data-state=acknowledged]")).to_have_count(ALARMS)
    keyboard.press_until("Shift+Tab", page.locator("[data-filter=search]"), 25)
    keyboard.type("too hot")
    expect(rows(page)).to_have_count(MACHINES)
    keyboard.press_until("Tab", rows(page).first.get_by_role("checkbox"), 25)
    keyboard.press("Space", "End", "Shift+Space")
    shelve = page.get_by_role("button", name=f"Shelve ({MACHINES})")
    keyboard.press_until("Shift+Tab", shelve, 12)
    keyboard.press("Enter")
    keyboard.type("the ovens are being repaired")
    keyboard.press("Enter")
    expect(page.get_by_text(f"{MACHINES} alarms shelved.")).to_be_visible()
    expect(rows(page)).to_have_count(0)
    assert keyboard.actions <= 70
    shelved = alarms(hall, "&state=shelved")
    assert {(each["rule"], each["reason"]) for each in shelved} == {("hot", "the ovens are being repaired")}
    assert len(shelved) == MACHINES
    assert violations(page) == []


def test_arrow_keys_extend_selection_and_escape_ends_it(page: Page, hall: Platform) -> None:
    """Shift with the arrow keys selects rows; the keyboard stays at its place when the list changes."""
    opened(page, hall, "/alarms?sort=machine&rule=hot")
    first = rows(page).first.get_by_role("checkbox")
    first.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowDown")
    expect(page.get_by_text("4 alarms selected")).to_be_visible()
    expect(page.locator("tr[aria-selected=true]")).to_have_count(4)
    fourth = page.locator(f"[data-alarm='{name(3)}~hot']").get_by_role("checkbox")
    expect(fourth).to_be_focused()
    comment = {"text": f"seen at {time.time()}"}
    assert http("POST", f"{hall.api}/api/alarms/{name(3)}~hot/comments", comment).status == 201
    expect(page.locator(f"[data-alarm='{name(3)}~hot']")).to_contain_text(comment["text"])  # the list was made again
    expect(fourth).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("tr[aria-selected=true]")).to_have_count(0)
    rows(page).nth(1).get_by_role("checkbox").click()
    rows(page).nth(5).get_by_role("checkbox").click(modifiers=["Shift"])
    expect(page.get_by_text("5 alarms selected")).to_be_visible()


def test_groups_filters_and_sorting_are_in_the_address(page: Page, hall: Platform) -> None:
    """What is chosen is in the address, which restores it; a saved view restores it by its name."""
    opened(page, hall, "/alarms")
    page.locator("[data-filter=group]").select_option("site")
    expect(page.locator("tr.group")).to_have_count(2)
    page.locator("[data-filter=group]").select_option("line")
    for group in ("No line (280)", "Line 1 (20)"):
        expect(page.locator("tr.group", has_text=group)).to_be_visible()
    page.get_by_label("Select the 20 alarms of Line 1").check()
    expect(page.get_by_text("20 alarms selected")).to_be_visible()
    page.locator("[data-filter=site]").select_option("south")
    page.get_by_role("searchbox").fill("too fast")
    page.locator("button[data-sort=machine]").click()
    page.locator("button[data-sort=machine]").click()
    expect(rows(page)).to_have_count(MACHINES // 2)
    expect(page.get_by_text("5 alarms selected")).to_be_visible()  # those that are no longer shown are not
    expect(rows(page).first).to_have_attribute("data-alarm", f"{name(149)}~fast")
    address = page.url
    page.get_by_role("button", name="Save view").click()
    page.get_by_role("dialog").get_by_label("Name").fill("Fast in the south")
    page.get_by_role("dialog").get_by_role("button", name="Save view").click()
    expect(page.locator("[data-filter=saved]")).to_have_value("Fast in the south")
    assert violations(page) == []
    page.reload()
    expect(rows(page)).to_have_count(MACHINES // 2)
    expect(page.locator("tr.group").first).to_be_visible()
    page.get_by_role("link", name="Alarms", exact=False).first.click()
    expect(rows(page)).to_have_count(ALARMS)
    page.locator("[data-filter=saved]").select_option("Fast in the south")
    expect(rows(page)).to_have_count(MACHINES // 2)
    assert page.url == address
    page.go_back()
    expect(rows(page)).to_have_count(ALARMS)


def test_comment_is_shown_with_its_author(page: Page, hall: Platform) -> None:
    """A comment is shown at its alarm with author and time, in the history too, and is found by the search."""
    opened(page, hall, "/alarms?search=desk-007+hot")
    page.get_by_label("Your name").fill("Ada")
    page.get_by_label("Your name").press("Tab")
    row = page.locator("[data-alarm='desk-007~hot']")
    row.get_by_role("button", name="Comment").click()
    page.get_by_role("dialog").get_by_label("Comment").fill("The fan is loose\norder 4711")
    assert violations(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Comment").click()
    expect(row).to_contain_text("order 4711")
    expect(row).to_contain_text("Ada")
    page.get_by_role("searchbox").fill("4711")
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="History").click()
    page.locator("[data-filter=transition]").select_option("commented")
    entries = page.get_by_role("table", name="History").locator("tbody tr")
    expect(entries.filter(has_text="order 4711")).to_have_count(1)
    expect(entries.filter(has_not_text="commented")).to_have_count(0)


def test_history_is_filtered_and_shows_older_pages(page: Page, hall: Platform) -> None:
    """The history has filters of machine and time in the address, and shows older entries on demand."""
    opened(page, hall, "/alarms?view=journal&transition=raised")
    entries = page.get_by_role("table", name="History").locator("tbody tr")
    expect(entries).to_have_count(200)
    page.get_by_role("button", name="Show older entries").click()
    expect(entries).to_have_count(ALARMS)
    expect(page.get_by_role("button", name="Show older entries")).to_be_hidden()
    reading = {"machine_id": "late", "sensor": "heat", "timestamp": time.time(), "value": 99}
    assert http("POST", f"{hall.api}/api/readings", {"readings": [reading]}).status == 200
    expect(entries.first).to_contain_text("late")
    expect(entries).to_have_count(ALARMS + 1)  # what is new is added, and older pages stay
    reading = {"machine_id": "late", "sensor": "heat", "timestamp": time.time(), "value": 20}
    assert http("POST", f"{hall.api}/api/readings", {"readings": [reading]}).status == 200
    page.locator("[data-filter=machine]").fill("late")
    page.locator("[data-filter=machine]").press("Enter")
    expect(entries).to_have_count(1)
    page.locator("[data-filter=transition]").select_option("")
    expect(entries.first).to_contain_text("cleared")
    page.locator("[data-filter=range]").select_option("custom")
    tomorrow = datetime.datetime.now() + datetime.timedelta(days=1)
    page.locator("[data-filter=start]").fill(tomorrow.strftime("%Y-%m-%dT%H:%M"))
    page.locator("[data-filter=start]").press("Tab")
    expect(page.get_by_text("No entries in this period.")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No entries in this period.")).to_be_visible()
    expect(page.locator("[data-filter=machine]")).to_have_value("late")
    assert violations(page) == []
    assert http("POST", f"{hall.api}/api/alarms/late~hot/ack").status == 200


def test_refused_bulk_action_is_explained_at_each_alarm(page: Page, hall: Platform, watched: Watched) -> None:
    """If the API refuses an action on many alarms, each shows why, and stays selected."""
    watched.expected = ["503"]
    problem = '{"type": "urn:aurumai:problem:unavailable", "detail": "the store is away"}'
    refusal = {"status": 503, "content_type": "application/problem+json", "body": problem}
    page.route("**/api/alarms/shelve", lambda route: route.fulfill(**refusal))
    opened(page, hall, "/alarms?search=desk-00&rule=hot")
    page.get_by_label("Select all 10 alarms shown").check()
    page.get_by_role("button", name="Shelve (10)").click()
    page.get_by_role("dialog").get_by_role("button", name="Shelve").click()
    expect(page.get_by_text("10 alarms unchanged")).to_be_visible()
    expect(rows(page).locator(".problem:visible")).to_have_count(10)
    expect(page.get_by_text("10 alarms selected")).to_be_visible()


def test_shift_handover_is_shown_printed_and_saved(page: Page, hall: Platform) -> None:
    """The handover report shows what the shift leaves; printed it is the report alone, and saved it is CSV."""
    ids = ["desk-020~hot", "desk-021~hot"]
    body = {"ids": ids, "minutes": 60, "by": "Ada", "reason": "the probes are being changed"}
    assert http("POST", f"{hall.api}/api/alarms/shelve", body).status == 200
    comment = {"text": "Ask the electrician", "by": "Ada"}
    assert http("POST", f"{hall.api}/api/alarms/desk-022~hot/comments", comment).status == 201
    opened(page, hall, "/alarms")
    page.get_by_role("button", name="Shift handover").click()
    report = page.locator(".report:visible")
    expect(report.get_by_role("heading", name="Open at the end")).to_contain_text(f"({ALARMS - 2})")
    shelved = report.get_by_role("table", name="Shelved at the end").locator("tbody tr")
    expect(shelved).to_have_count(2)
    expect(shelved.first).to_contain_text("the probes are being changed")
    expect(report.get_by_role("table", name="Comments")).to_contain_text("Ask the electrician")
    expect(report.get_by_role("table", name="Machines with most alarms").locator("tbody tr")).to_have_count(10)
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("link", name="Save as CSV").click()
    assert "the probes are being changed" in download.value.path().read_text()
    page.emulate_media(media="print")
    for hidden in ("header", ".filters", ".report-bar", ".tabs"):
        expect(page.locator(hidden).first).to_be_hidden()
    expect(report).to_be_visible()
    page.emulate_media(media="screen")
    page.reload()
    expect(report).to_be_visible()


def test_alarm_figures_are_shown_beside_their_targets(page: Page, hall: Platform) -> None:
    """The figures are shown with the targets of the standards, and say which are met."""
    opened(page, hall, "/alarms?view=figures&range=1")
    stale = page.locator("[data-figure=stale]")
    expect(stale).to_contain_text("✓ yes")
    expect(page.locator("[data-figure=peak]")).to_contain_text("✗ no")
    expect(page.get_by_role("heading", name="Ten most frequent rules: 100%")).to_be_visible()
    expect(page.get_by_text("Too hot")).to_be_visible()
    page.locator("[data-filter=positions]").fill("100")
    page.locator("[data-filter=positions]").press("Enter")
    expect(page.get_by_text("for each of 100 operator positions")).to_be_visible()
    expect(page.locator("[data-figure=peak]")).to_contain_text("✓ yes")
    assert violations(page) == []


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_desk_fits_a_phone_and_has_no_violation(
    context: BrowserContext, page: Page, hall: Platform, language: str, theme: str
) -> None:
    """At 390 px the page does not scroll sideways, and axe finds nothing, in each language and theme."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_init_script(f"localStorage['aurum.language'] = '{language}'; localStorage['aurum.theme'] = '{theme}'")
    for query in (
        "?rule=hot&search=desk-00&group=site",
        "?view=journal&machine=desk-001",
        "?view=handover&range=1",
        "?view=figures",
        "?view=rules",
    ):
        opened(page, hall, f"/alarms{query}")
        expect(page.locator("tbody tr:visible").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), query
        assert violations(page) == []
    text = page.locator("main").inner_text()
    assert not re.search(r"\b(desk|views|select|bulk|history|group|report|figures|rules)\.\w+|\{\w+\}", text)
