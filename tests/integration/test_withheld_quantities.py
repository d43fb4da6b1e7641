"""A champion that has skill for one quantity only: the services withhold the other one and say why."""

from pathlib import Path
from typing import Any

import pytest

from aurum_sim.machine_types import PUMP
from aurum_sim.plant_model import run_to_failure
from tests.support.http import http
from tests.support.models import doubtful_version
from tests.support.platform import Platform
from tests.support.sent_life import send_life
from tests.support.waiting import wait_for

MACHINE = "pump-doubtful"


@pytest.mark.parametrize("doubtful", ["risk", "rul"])
def test_withheld_quantity_is_unknown_with_its_reason(tmp_path: Path, doubtful: str) -> None:
    """A request, the list of machines, the live events and the advice tell the reason; the other quantity is told."""
    doubtful_version(tmp_path / "models", "v1", doubtful)
    plant = Platform(tmp_path, extra={"AURUM_PREDICTION_SCORE_INTERVAL": "1"})
    try:
        for service in ("ingestion", "prediction", "api"):
            plant.start(service)
        send_life(plant, MACHINE, run_to_failure(PUMP, 1, seed=5)[0], 200)
        path = f"{plant.api}/api/machines/{MACHINE}"
        other = "rul" if doubtful == "risk" else "risk_score"

        def known() -> dict[str, Any]:
            found: dict[str, Any] = http("GET", path).json
            return found if found.get(f"{doubtful}_unknown_reason") else {}

        wait_for(known, 30, "the machine has a prediction of the fleet scorer")
        for told in (http("POST", f"{path}/predict").json, known()):
            assert f"model pump v1 has no proven skill for the {NAMES[doubtful]}" in told[f"{doubtful}_unknown_reason"]
            assert told["risk_score" if doubtful == "risk" else "rul"] is None
            assert told[other] is not None
            assert not told["without_skill"]
        advice = http("GET", f"{path}/advice")
        if doubtful == "rul":
            assert (advice.status, advice.json["type"].rpartition(":")[2]) == (409, "no-skill")
            assert f"there is no advice for {MACHINE}: model pump v1 has no proven skill" in advice.json["detail"]
        else:
            assert advice.status == 200
    finally:
        plant.stop()


NAMES = {"risk": "risk", "rul": "remaining useful life"}
