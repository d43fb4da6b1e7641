"""A Chromium, and what tests do with a page of the console."""

import os
import re
import shutil
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, expect

from tests.support.platform import Platform

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MACHINES = 8  # of the plant that the pages show
RULES: dict[str, Any] = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
PATIENCE = 20_000  # ms that a page gets on a machine that has other things to do


def browser_path() -> str | None:
    """The system's Chromium, or the one that AURUM_BROWSER names."""
    return os.environ.get("AURUM_BROWSER") or next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Watched:
    """What a page's console, its scripts or its policy complained of; a test names in `expected` what it provokes."""

    def __init__(self, context: BrowserContext) -> None:
        self.problems: list[str] = []
        self.expected: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self.problems.append(str(error.error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def unexpected(self) -> list[str]:
        return [each for each in self.problems if not any(part in each for part in self.expected)]


def opened(page: Page, platform: Platform, path: str = "/") -> Page:
    page.goto(f"{platform.api}{path}")
    page.wait_for_selector("html[data-ready]")
    return page


def a_pump(page: Page) -> str:
    """The name of a machine in the table that has a prediction."""
    row = page.locator("tr.machine").filter(has_text=re.compile("%")).first
    expect(row).to_be_visible(timeout=60_000)
    return row.locator("th").inner_text()


def violations(page: Page, rules: dict[str, Any] = RULES) -> list[str]:
    found = Axe().run(page, options=rules).response["violations"]
    return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]
