"""The console: how soon it is there, how soon a reading is on the screen, what a hundred open ones cost.

The browser is the system's Chromium, beside the platform on the same cores. Costs are differences within one run: the
same API with and without consoles, in turns.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from tests.support.browser import browser_path
from tests.support.http import http
from tests.support.platform import Platform

from benchmarks.harness import Goal, report, spread

MACHINES = 200
CONSOLES = 200
THROTTLE = 4
_READY = """
new MutationObserver((_, observer) => {
  if (!document.querySelector("html[data-ready] tr.machine")) return;
  window.readyAt = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true, attributes: true, attributeFilter: ["data-ready"] });
"""
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    path = browser_path()
    assert path is not None, "there is no Chromium here; install one, or name one with AURUM_BROWSER"
    with tempfile.TemporaryDirectory() as state:
        # All consoles are of one address here, which otherwise has half of the places
        settings = {"AURUM_FEATURE_PREDICTIVE": "false", "AURUM_STREAM_CALLER_SHARE": "1"}
        platform = Platform(Path(state), extra=settings)
        try:
            for service in ("ingestion", "api"):
                platform.start(service)
            platform.start("iot-sim", "--machines", str(MACHINES), "--to", "ingestion", "--backfill", "0")
            time.sleep(5)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                loads = [_load(browser.new_page(), platform) for _ in range(3 if quick else 9)]
                delays = _delays(browser.new_page(), platform, 40 if quick else 200)
                browser.close()
            costs = [_cost(platform, 6 if quick else 15) for _ in range(2 if quick else 5)]
        finally:
            platform.stop()
    ready = [load["ready_ms"] for load in loads]
    centiles = statistics.quantiles(delays, n=100)
    shares = [cost["share"] for cost in costs]
    report(
        "console",
        {
            "first_load_bytes": Goal(max(load["bytes"] for load in loads), 100_000, at_most=True),
            "interactive_ms": Goal(statistics.median(ready), 1000, at_most=True),
            "reading_to_screen_p95_ms": Goal(centiles[94], 500, at_most=True),
            "two_hundred_consoles_percent_of_core": Goal(100 * statistics.median(shares), 10, at_most=True),
        },
        {
            "ready_ms": spread(ready),
            "reading_to_screen_ms": {
                "p50": centiles[49],
                "p95": centiles[94],
                "p99": centiles[98],
                "runs": len(delays),
            },
            "consoles": costs,
            "protocol": f"{MACHINES} machines at 1 Hz; CPU throttled {THROTTLE} times; {CONSOLES} streams beside one. "
            "A reading is accepted when its POST is answered, and on the screen when the table's cell has it.",
        },
    )


def _load(page: Page, platform: Platform) -> dict[str, float]:
    """A first visit with nothing cached: ready is when machines are in the table and the page takes input."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Emulation.setCPUThrottlingRate", {"rate": THROTTLE})
    sizes: dict[str, float] = {}
    urls: dict[str, str] = {}
    session.on("Network.requestWillBeSent", lambda event: urls.update({event["requestId"]: event["request"]["url"]}))
    session.on("Network.loadingFinished", lambda event: sizes.update({event["requestId"]: event["encodedDataLength"]}))
    page.add_init_script(_READY)
    page.goto(f"{platform.api}/", wait_until="commit")
    page.wait_for_selector("html[data-ready] tr.machine")
    page.wait_for_timeout(300)
    ready = float(page.evaluate("window.readyAt"))
    page.close()
    return {"ready_ms": ready, "bytes": sum(size for each, size in sizes.items() if "/api/" not in urls[each])}


def _delays(page: Page, platform: Platform, probes: int) -> list[float]:
    """Milliseconds from the answer to POST until the table shows the value."""

    def post(value: int) -> float:
        reading = {"machine_id": "probe", "sensor": "x", "timestamp": time.time(), "value": value}
        assert http("POST", f"{platform.api}/api/readings", {"readings": [reading]}).status == 200
        return time.time() * 1000

    post(0)
    page.goto(f"{platform.api}/")
    page.get_by_label("Search").fill("probe")
    cell = page.locator("tr.machine .values")
    cell.wait_for()
    page.evaluate(
        """() => {
            window.seen = {};
            const cell = document.querySelector("tr.machine .values");
            new MutationObserver(() => { window.seen[cell.textContent] ??= Date.now(); }).observe(
                cell, { childList: true, characterData: true, subtree: true });
        }"""
    )
    accepted: dict[str, float] = {}
    for value in range(1, probes + 1):
        accepted[f"X {value}"] = post(value)
        page.wait_for_timeout(610 + value * 37 % 400)  # in no step with what the platform does each fifth of a second
    seen = page.evaluate("window.seen")
    missing = [text for text in accepted if text not in seen]
    assert not missing, f"never on the screen: {missing}"
    return [max(0.0, seen[text] - at) for text, at in accepted.items()]


def _cost(platform: Platform, seconds: float) -> dict[str, float]:
    """CPU of the API as shares of a core: alone, with consoles, and the difference."""
    pid = platform.processes["api"].popen.pid

    def used() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    async def measured(consoles: int) -> float:
        async with _consoles(platform.port("api"), consoles):
            await asyncio.sleep(1.5)  # the first account of all machines
            before, at = used(), time.monotonic()
            await asyncio.sleep(seconds)
            return (used() - before) / (time.monotonic() - at)

    one, many = asyncio.run(measured(1)), asyncio.run(measured(1 + CONSOLES))
    return {"with_one": one, "with_101": many, "share": many - one}


@contextlib.asynccontextmanager
async def _consoles(port: int, count: int) -> AsyncIterator[None]:
    async def read() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
        try:
            while await reader.read(262_144):
                pass
        finally:
            writer.close()

    tasks = [asyncio.create_task(read()) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    main()
