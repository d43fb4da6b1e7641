"""A real Chromium that looks at a real platform. What goes wrong in a page ends the test, whatever it is about."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.conftest import Platform

_NAMES = ("chromium", "chromium-browser", "google-chrome")
MACHINES = 8
_PATIENCE = 20_000  # ms that a page gets on a machine that has other things to do

expect.set_options(timeout=_PATIENCE)


def browser_path() -> str | None:
    """The system's Chromium, or the one that AURUM_BROWSER names."""
    return os.environ.get("AURUM_BROWSER") or next((path for name in _NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip(f"there is no browser here: none of {', '.join(_NAMES)}, and AURUM_BROWSER names none")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[*arguments, "--enable-precise-memory-info"])
        yield running
        running.close()


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


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1366, "height": 900}, locale="en-GB")
    opened.set_default_timeout(_PATIENCE)
    yield opened
    opened.close()


@pytest.fixture
def watched(context: BrowserContext) -> Iterator[Watched]:
    watching = Watched(context)
    yield watching
    assert watching.unexpected() == []


@pytest.fixture
def page(context: BrowserContext, watched: Watched) -> Page:
    return context.new_page()


@pytest.fixture(scope="session")
def plant(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Platform]:
    """A plant with the live simulator, whose pumps have a model; faults can be injected."""
    running = Platform(
        tmp_path_factory.mktemp("plant"),
        extra={
            "AURUM_MODEL_DIR": str(models),
            "AURUM_FAULTS_ENABLED": "true",
            "AURUM_FEATURE_WATER": "true",
            "AURUM_API_REFRESH_INTERVAL": "1",
            "AURUM_CONSOLE_JAEGER_URL": "http://127.0.0.1:16686",
            "AURUM_CONSOLE_LOGS_URL": "http://127.0.0.1:3000/explore?trace={trace_id}",
        },
    )
    for service in ("ingestion", "prediction", "api", "edge"):
        running.start(service)
    running.start("iot-sim", "--machines", str(MACHINES), "--machine-type", "pump", "--backfill", "400")
    yield running
    running.stop()
