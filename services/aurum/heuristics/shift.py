"""The rule for any machine: the shift of the latest readings from the beginning of the machine's history.

For each sensor z = |mean of the last 8 readings - mean of the first 30 %| / standard deviation of the first 30 %. The
risk is z/(z + 6) for the mean z of the three sensors with the greatest shift. It is not a probability and does not
refer to a period of time.
"""

from collections.abc import Mapping

import numpy as np

from aurum.heuristics.result import LATEST, LEAST_READINGS, RuleResult
from aurum.readings.batch import Column
from aurum.readings.history import AXES, LABELS

_BASELINE_SHARE = 0.3
_STRONGEST = 3
_HALF_RISK = 6.0  # standard deviations at which the risk is 0.5


def assess_by_shift(columns: Mapping[str, Column]) -> RuleResult | None:
    """Assesses a machine by the shift of its latest readings.

    Args:
        columns: For each sensor, times in µs since 1970 and values.

    Returns:
        The result, or None if no sensor has LEAST_READINGS readings.
    """
    shifts: dict[str, tuple[float, float]] = {}
    for sensor, (_, values) in columns.items():
        valid = values[~np.isnan(values)]
        if sensor.lower() in AXES or sensor.lower() in LABELS or len(valid) < LEAST_READINGS:
            continue
        baseline = valid[: max(4, int(len(valid) * _BASELINE_SHARE))]
        spread = float(baseline.std())
        latest = float(valid[-LATEST:].mean())
        scale = max(spread, 1e-3 * abs(float(baseline.mean())), 1e-12)
        shifts[sensor] = (latest, (latest - float(baseline.mean())) / scale)
    if not shifts:
        return None
    ordered = dict(sorted(shifts.items(), key=lambda item: -abs(item[1][1])))
    strongest = [abs(shift) for _, shift in list(ordered.values())[:_STRONGEST]]
    mean_shift = float(np.mean(strongest))
    return RuleResult(mean_shift / (mean_shift + _HALF_RISK), ordered, "shift")
