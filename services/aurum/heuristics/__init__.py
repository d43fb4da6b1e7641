"""The fallback rules, which assess machines for which no model is available.

Machine types with documented limits are assessed by these, others by the shift of readings since the beginning of their
history. The results are not probabilities, so the answers are always marked as degraded.
"""

from collections.abc import Mapping

from aurum.heuristics.limits import assess_by_limits
from aurum.heuristics.result import LEAST_READINGS, RuleResult
from aurum.heuristics.shift import assess_by_shift
from aurum.readings.batch import Column

__all__ = ["LEAST_READINGS", "RuleResult", "assess"]


def assess(machine_type: str, columns: Mapping[str, Column]) -> RuleResult | None:
    """Assesses a machine by its latest readings.

    Args:
        machine_type: The machine type; empty if it is not known.
        columns: For each sensor, times in µs since 1970 and values.

    Returns:
        The result, or None if there are too few readings.
    """
    return assess_by_limits(machine_type, columns) or assess_by_shift(columns)
