"""The fallback rules, which assess machines for which no model is available.

Machine types with documented limits are assessed by these, others by the shift of readings since the beginning of their
history. The results are not probabilities. Therefore the answers are always marked as degraded.
"""

from collections.abc import Mapping

from aurum.heuristics import limits, shift
from aurum.heuristics.result import LEAST_READINGS, RuleResult
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
    return limits.assess(machine_type, columns) or shift.assess(columns)
