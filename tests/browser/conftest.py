"""A real Chromium that looks at a real platform. What goes wrong in a page ends the test, whatever it is about."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.support.browser import BROWSERS, MACHINES, PATIENCE, Watched, browser_path
from tests.support.platform import Platform

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = browser_path()
    if path is None:
        pytest.skip(f"there is no browser here: none of {', '.join(BROWSERS)}, and AURUM_BROWSER names none")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=[*arguments, "--enable-precise-memory-info"])
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1366, "height": 900}, locale="en-GB")
    opened.set_default_timeout(PATIENCE)
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
            "AURUM_PREDICTION_SCORE_INTERVAL": "1",
            "AURUM_CONSOLE_JAEGER_URL": "http://127.0.0.1:16686",
            "AURUM_CONSOLE_LOGS_URL": "http://127.0.0.1:3000/explore?trace={trace_id}",
        },
    )
    for service in ("ingestion", "prediction", "api", "edge"):
        running.start(service)
    running.start("iot-sim", "--machines", str(MACHINES), "--machine-type", "pump", "--backfill", "400")
    yield running
    running.stop()
