"""Nothing foreign runs in the console, and it loads little."""

from playwright.sync_api import Page, expect

from tests.support.browser import Watched, opened
from tests.support.http import http
from tests.support.platform import Platform

MOST_BYTES = 100_000  # of the first load, as they come over the wire


def test_content_security_policy_blocks_inline_script(page: Page, plant: Platform, watched: Watched) -> None:
    """The console's content security policy blocks an injected inline script."""
    opened(page, plant)
    watched.expected = ["Content Security Policy"]
    ran = page.evaluate(
        """() => new Promise((done) => {
            const tell = (event) => done(event.violatedDirective);
            document.addEventListener("securitypolicyviolation", tell, { once: true });
            const script = document.createElement("script");
            script.textContent = "window.foreign = true";
            document.head.append(script);
            setTimeout(() => done("it ran"), 2000);
        })"""
    )
    assert ran == "script-src-elem"
    assert page.evaluate("window.foreign") is None


def test_maintenance_note_is_rendered_as_text(page: Page, plant: Platform, watched: Watched) -> None:
    """HTML in a maintenance note is shown as text and does not run."""
    watched.expected = ["409"]  # nothing is predicted of a machine without a type
    reading = {"machine_id": "strange", "sensor": "x_mm_s", "timestamp": "2026-01-01T00:00:00Z", "value": 1.0}
    assert http("POST", f"{plant.api}/api/readings", {"readings": [reading]}).status == 200
    note = {"text": "<img src=x onerror=\"document.title='foreign'\">"}
    assert http("POST", f"{plant.api}/api/machines/strange/maintenance", note).status == 201
    opened(page, plant, "/machines/strange")
    expect(page.locator("[data-card=maintenance] li")).to_contain_text("<img src=x")
    assert page.title() == "strange · AurumAI"


def test_first_load_transfers_at_most_100_kb(page: Page, plant: Platform) -> None:
    """The first load of the console, without API data, transfers at most 100 kB."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    received: dict[str, int] = {}
    session.on(
        "Network.loadingFinished", lambda event: received.update({event["requestId"]: event["encodedDataLength"]})
    )
    names: dict[str, str] = {}
    session.on("Network.requestWillBeSent", lambda event: names.update({event["requestId"]: event["request"]["url"]}))
    opened(page, plant)
    expect(page.locator("tr.machine").first).to_be_visible()
    page.wait_for_timeout(500)
    loaded = {names[request]: size for request, size in received.items() if "/api/" not in names.get(request, "/api/")}
    assert len(loaded) > 8, loaded
    assert sum(loaded.values()) <= MOST_BYTES, loaded
