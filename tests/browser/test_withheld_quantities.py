"""The page of a machine whose model withholds a quantity says that it is unknown, and why."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.browser import Watched, opened, violations
from tests.support.models import doubtful_version
from tests.support.platform import Platform
from tests.support.sent_life import send_life

MACHINE = "pump-doubtful"


@pytest.mark.parametrize("doubtful", ["risk", "rul"])
def test_page_tells_why_a_quantity_is_unknown(tmp_path: Path, page: Page, watched: Watched, doubtful: str) -> None:
    """The head shows "unknown" with the reason, and the card of the recommendation says why there is none."""
    watched.expected.append("409")  # of the advice
    doubtful_version(tmp_path / "models", "v1", doubtful)
    plant = Platform(tmp_path, extra={"AURUM_PREDICTION_SCORE_INTERVAL": "1"})
    try:
        for service in ("ingestion", "prediction", "api"):
            plant.start(service)
        send_life(plant, MACHINE, run_to_failure(PUMP, 1, seed=5)[0], 200)
        opened(page, plant, f"/machines/{MACHINE}")
        head = page.locator(".machine-head .fact")
        unknown = head.filter(has_text="Risk" if doubtful == "risk" else "Remaining life")
        expect(unknown.locator("b")).to_have_text("unknown")
        expect(unknown.locator("small")).to_contain_text("has not proven that it predicts better")
        advice = page.locator("[data-card=advice]")
        if doubtful == "rul":
            expect(advice).to_contain_text(
                "No recommendation: the model of this machine has not proven that it predicts better than"
            )
        else:
            expect(advice.locator("tr").first).to_be_visible()
        assert violations(page) == []
    finally:
        plant.stop()
