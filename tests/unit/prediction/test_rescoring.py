"""Predictions are repeated after late readings have arrived."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from aurum.prediction import metrics
from aurum.prediction.serving.rescoring import Rescorer
from aurum.prediction.serving.scoring import Prediction
from aurum.runtime.errors import AurumError
from tests.support.waiting import until


@pytest.mark.parametrize(("late", "result", "recorded"), [(0.0, "same", 0), (1.0, "changed", 1)])
async def test_scheduled_prediction_keeps_its_own_features(late: float, result: str, recorded: int) -> None:
    """What becomes of the array that the features were a part of does not matter, so it need not be kept."""
    features = np.arange(12.0).reshape(3, 4)
    original = features[1].copy()
    found: list[Prediction] = []

    async def predict(machine_ids: Sequence[str], end_us: int) -> list[Prediction | AurumError]:
        assert end_us == 6
        return [Prediction(each, "pump", 0.1, as_of_us=5, row=original + late) for each in machine_ids]

    rescorer = Rescorer(predict, found.append, 0.0, 1000.0)
    before = metrics.prediction_rescored_total.labels(result)._value.get()
    rescorer.schedule(Prediction("P-1", "pump", 0.1, as_of_us=5, row=features[1]))
    features[:] = -1.0
    running = asyncio.create_task(rescorer.run())
    await until(lambda: metrics.prediction_rescored_total.labels(result)._value.get() > before, "it is repeated")
    running.cancel()
    assert len(found) == recorded
