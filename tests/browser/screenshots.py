"""`python -m tests.browser.screenshots FOLDER`: pictures of the console over a live plant, for the docs.

It starts a platform of its own, with models of all simulated machine types and a past of seven days.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from aurum_sim.machine_types import MACHINE_TYPES
from tests.support.browser import browser_path
from tests.support.http import http
from tests.support.platform import Platform

_SIZE = {"width": 1440, "height": 900}
_PHONE = {"width": 390, "height": 844}
_WALL = {"width": 3840, "height": 2160}
_TALLER = 1400  # px, of pages that have much to show
_SETTLE = 75.0  # seconds, in which rates, predictions and alarms come about


def main(folder: Path) -> None:
    path = browser_path()
    if path is None:
        sys.exit("there is no Chromium here; install one, or name one with AURUM_BROWSER")
    with tempfile.TemporaryDirectory() as state:
        models = Path(state) / "models"
        command = [sys.executable, "-m", "aurum.cli", "train", "--out", str(models)]
        for name in MACHINE_TYPES:
            command += ["--machine-type", name]
        subprocess.run(command, check=True)
        extra = {"AURUM_MODEL_DIR": str(models), "AURUM_FAULTS_ENABLED": "true", "AURUM_FEATURE_WATER": "true"}
        platform = Platform(Path(state), extra=extra)
        try:
            for service in ("ingestion", "prediction", "api", "edge"):
                platform.start(service)
            platform.start("iot-sim", "--speed-up", "120", "--past-days", "7")
            platform.start("edge-sim", "--speed-up", "120")
            time.sleep(_SETTLE)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
                page = browser.new_page(viewport=_SIZE, locale="en-GB")
                for name, where in _pages(platform).items():
                    _take(page, platform, where, folder / f"{name}.png")
                _take_size(page, platform, _PHONE, folder / "phone.png")
                _take_size(page, platform, _WALL, folder / "wall.png")
                browser.close()
        finally:
            platform.stop()


def _pages(platform: Platform) -> dict[str, str]:
    machines = http("GET", f"{platform.api}/api/machines?limit=200").json["items"]
    riskiest = max(machines, key=lambda each: each["risk_score"] or 0)["machine_id"]
    http("POST", f"{platform.api}/api/platform/faults/prediction", {"kind": "delay", "delay": "1s", "duration": "6s"})
    http("POST", f"{platform.api}/api/machines/{riskiest}/predict")
    return {"plant": "/", "machine": f"/machines/{riskiest}", "alarms": "/alarms", "platform": "/platform"}


def _take(page: Page, platform: Platform, where: str, picture: Path) -> None:
    page.set_viewport_size({**_SIZE, "height": _TALLER} if where == "/platform" or "machines" in where else _SIZE)
    page.goto(f"{platform.api}{where}")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(6000)
    if where == "/platform":
        page.locator(".traces button").first.click()
        page.wait_for_timeout(1500)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=picture)
    print(picture)


def _take_size(page: Page, platform: Platform, size: dict[str, int], picture: Path) -> None:
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    page.goto(f"{platform.api}/")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_timeout(4000)
    page.screenshot(path=picture)
    print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
