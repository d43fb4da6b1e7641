"""Decides which predictions are recorded as forecasts, which are compared later with what happened."""

import collections

from aurum.v1 import prediction_pb2

_PER_HORIZON = 8  # forecasts of a machine
_REMEMBERED = 100_000  # machines


class ForecastThinning:
    """Selects about eight predictions of each machine for each horizon, by its life counter."""

    def __init__(self) -> None:
        self._last: collections.OrderedDict[str, float] = collections.OrderedDict()  # machine → life

    def is_due(self, response: prediction_pb2.PredictResponse) -> bool:
        """Returns whether a prediction is recorded as a forecast. Only those with the risk of a model are."""
        without_risk = response.degraded or response.rule or response.risk_unknown_reason
        if without_risk or response.horizon <= 0 or not response.HasField("life"):
            return False
        last = self._last.get(response.machine_id)
        if last is not None and last <= response.life < last + response.horizon / _PER_HORIZON:
            return False
        self._last[response.machine_id] = response.life
        self._last.move_to_end(response.machine_id)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return True
