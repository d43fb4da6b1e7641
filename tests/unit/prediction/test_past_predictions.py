"""Predictions of a simulated past: each is made as a request at its moment would have been answered."""

from pathlib import Path

import numpy as np
import pytest

from aurum.prediction.learning.past_predictions import predict_past
from aurum.prediction.model.model import load_model
from aurum.prediction.serving.inputs import PredictionInput
from aurum.prediction.serving.readings_client import MachineReadings
from aurum.prediction.serving.scoring import Prediction, Scorer
from aurum.readings.batch import Column
from aurum_sim.fleet import Fleet
from aurum_sim.past import past_of
from tests.support.models import pump_version

END_US = 1_800_000_000_000_000


@pytest.fixture(scope="module")
def pumps() -> list[MachineReadings]:
    """The past of the pumps of the demo plant; some were overhauled in it, and one failed."""
    fleet = Fleet(40, 7, "test")
    group = past_of(fleet, END_US, 168.0, 1, 7)[0]
    found = []
    for machine, machine_id in enumerate(group.machine_ids):
        columns: dict[str, Column] = {}
        for index, sensor in enumerate(group.sensors):
            present = group.present[:, machine, index]
            columns[sensor] = group.times[present], group.values[present, machine, index]
        found.append(MachineReadings(machine_id, columns))
    assert sum(bool(stops) for stops in group.stops) >= 3
    return found


def up_to(readings: MachineReadings, at_us: int) -> MachineReadings:
    columns = {
        sensor: (times[times <= at_us], values[times <= at_us]) for sensor, (times, values) in readings.columns.items()
    }
    return MachineReadings(readings.machine_id, columns)


def test_past_prediction_equals_the_one_of_its_moment(pumps: list[MachineReadings], tmp_path: Path) -> None:
    """Also before, at and after an overhaul: later readings, and those of earlier lives, change no feature."""
    version = pump_version(tmp_path, "past")
    model = load_model(tmp_path / "pump" / version)
    for readings in pumps:
        predictions = predict_past(model, "pump", readings)
        assert len(predictions) > 100
        times = np.array([each.as_of_us for each in predictions])
        assert (np.diff(times) >= 0.9 * 3_600_000_000).all()
        falls = np.flatnonzero(np.diff([each.life or 0.0 for each in predictions]) < 0)
        chosen = {0, len(predictions) - 1, len(predictions) // 2, *falls.tolist(), *(falls + 1).tolist()}
        for index in sorted(chosen):
            past = predictions[index]
            given = PredictionInput("p", "pump", model, up_to(readings, past.as_of_us))
            (then,) = Scorer().score([given])
            assert isinstance(then, Prediction)
            assert then.inputs_sha256 == past.inputs_sha256
            assert (then.as_of_us, then.risk_score, then.rul) == (past.as_of_us, past.risk_score, past.rul)
