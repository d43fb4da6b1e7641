"""axe-core finds no violation on any page or dialog, in each theme and language, on screens of the usual sizes."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from aurum.security.api_keys import KeyFile, make_key, write_keys
from tests.support.browser import CONTRAST, PATIENCE, RULES, Watched, opened, violations
from tests.support.http import http
from tests.support.platform import Platform
from tests.support.waiting import wait_for

ALARM_RULES = "rules: [{name: hot, text: Too hot, priority: high, sensor: {sensor: heat, above: 80}}]"
PUMP = "pump-001"
OVEN = "oven-1"


@dataclass(frozen=True)
class Secured:
    """A platform that asks who its callers are, the key of an administrator, and a page that is used by all tests."""

    platform: Platform
    key: str
    page: Page
    watched: Watched

    def call(self, method: str, path: str, body: object = None) -> None:
        answer = http(method, f"{self.platform.api}{path}", body, {"Authorization": f"Bearer {self.key}"})
        assert answer.status < 300, answer.body

    def sign_in(self) -> None:
        answer = self.page.context.request.post(f"{self.platform.api}/api/session", data={"credential": self.key})
        assert answer.ok

    def has(self, path: str, text: str) -> bool:
        answer = http("GET", f"{self.platform.api}{path}", None, {"Authorization": f"Bearer {self.key}"})
        return answer.status == 200 and text.encode() in answer.body


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, models: Path, browser: Browser) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    key, administrator = make_key("Ada", ("admin",))
    write_keys(folder / "keys.yaml", KeyFile(keys=(administrator,)))
    (folder / "rules.yaml").write_text(ALARM_RULES)
    extra = {
        "AURUM_AUTH_KEYS_FILE": str(folder / "keys.yaml"),
        "AURUM_ALARM_RULES": str(folder / "rules.yaml"),
        "AURUM_MODEL_DIR": str(models),
        "AURUM_FEATURE_WATER": "true",
        "AURUM_FAULTS_ENABLED": "true",
        "AURUM_PREDICTION_SCORE_INTERVAL": "1",
    }
    platform = Platform(folder, extra=extra)
    context = browser.new_context(viewport={"width": 1366, "height": 900}, locale="en-GB")
    context.set_default_timeout(PATIENCE)
    try:
        for service in ("ingestion", "prediction", "api", "edge"):
            platform.start(service)
        platform.start("iot-sim", "--machines", "2", "--machine-type", "pump", "--backfill", "400")
        found = Secured(platform, key, context.new_page(), Watched(context))
        reading = {"machine_id": OVEN, "sensor": "heat", "timestamp": time.time(), "value": 95}
        found.call("POST", "/api/readings", {"readings": [reading]})
        found.sign_in()
        wait_for(lambda: found.has("/api/alarms?limit=10", OVEN), 60, "the alarm")
        wait_for(lambda: found.has("/api/machines?limit=10", '"risk_score":0'), 60, "a prediction")
        opened(found.page, platform)  # so that there is an origin to remember what is chosen
        yield found
    finally:
        context.close()
        platform.stop()


def nothing(page: Page) -> None:
    """Opens nothing."""


def rule_editor(page: Page) -> None:
    page.locator("[data-rules=add]").click()


def selection(page: Page) -> None:
    page.locator("tr.alarm input[type=checkbox]").first.check()


def bulk_dialog(page: Page) -> None:
    selection(page)
    page.locator(".bulk button:visible").first.click()


def dialog_of_an_alarm(place: int) -> Callable[[Page], None]:
    return lambda page: page.locator("tr.alarm td.actions button").nth(place).click()


@dataclass(frozen=True)
class Sight:
    """What is looked at: a path, what must be seen there, and what is opened then."""

    path: str
    seen: str
    opens: Callable[[Page], None] = nothing
    screen: str = ""
    signed_in: bool = True
    printed: bool = False
    width: int = 1366


SIGHTS = {
    "plant": Sight("/", "tr.machine"),
    "plant on a phone": Sight("/", "tr.machine", width=390),
    "machine on a phone": Sight(f"/machines/{PUMP}", "[data-card=advice] tbody tr", width=390),
    "platform on a phone": Sight("/platform", "[data-card=faults] button", width=390),
    "wall screen": Sight("/", "tr.machine", screen="wall", width=3840),
    "machine": Sight(f"/machines/{PUMP}", "[data-card=advice] tbody tr"),
    "alarms": Sight("/alarms", "tr.alarm"),
    "selected alarms": Sight("/alarms", "tr.alarm", selection),
    "bulk action": Sight("/alarms", "tr.alarm", bulk_dialog),
    "shelving": Sight("/alarms", "tr.alarm", dialog_of_an_alarm(1)),
    "comments": Sight("/alarms", "tr.alarm", dialog_of_an_alarm(2)),
    "history": Sight("/alarms?view=journal", "tbody tr"),
    "handover": Sight("/alarms?view=handover", "table"),
    "printed handover": Sight("/alarms?view=handover", "table", printed=True),
    "figures": Sight("/alarms?view=figures", "table"),
    "rules": Sight("/alarms?view=rules", "[data-rules=add]"),
    "rule editor": Sight("/alarms?view=rules", "[data-rules=add]", rule_editor),
    "platform": Sight("/platform", "[data-instance=prediction]"),
    "compare": Sight(f"/compare?sensor=vibration_mm_s&machine={PUMP}", "canvas"),
    "connect": Sight("/connect", "main pre"),
    "page that does not exist": Sight("/nothing", "main a"),
    "sign-in": Sight("/", "form.sign-in", signed_in=False),
}


@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize("sight", SIGHTS.values(), ids=SIGHTS)
def test_every_sight_passes_axe_in_both_themes(secured: Secured, sight: Sight, language: str) -> None:
    """Each page and dialog in each language: all rules in the light theme; contrast, which differs, in the dark one."""
    page = secured.page
    secured.watched.expected = ["404"] if sight.path == "/nothing" else [] if sight.signed_in else ["401"]
    secured.watched.problems.clear()
    if not sight.signed_in:
        page.context.clear_cookies()
    page.set_viewport_size({"width": sight.width, "height": 900})
    page.emulate_media(color_scheme="light", media="screen")
    page.evaluate(
        "([language, screen]) => Object.assign(localStorage,"
        "{ 'aurum.language': language, 'aurum.theme': 'auto', 'aurum.screen': screen })",
        [language, sight.screen],
    )
    try:
        opened(page, secured.platform, sight.path)
        expect(page.locator(sight.seen).first).to_be_visible()
        sight.opens(page)
        if sight.printed:
            page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        found = violations(page, RULES)
        if not sight.printed:
            page.emulate_media(color_scheme="dark")
            found += violations(page, CONTRAST)
        assert page.locator("html").get_attribute("lang") == language
        assert found == []
        assert secured.watched.unexpected() == []
    finally:
        if not sight.signed_in:
            secured.sign_in()
