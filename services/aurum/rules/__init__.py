"""The rules that answer where no model can: by limits for the machine types that have some, else by how far a machine
has moved from its own beginning. They are no probabilities, so what they answer is always marked as degraded."""

from collections.abc import Mapping

from aurum.readings.batch import Column
from aurum.rules import limits, shift
from aurum.rules.result import LEAST_READINGS, RuleResult

__all__ = ["LEAST_READINGS", "RuleResult", "assess"]


def assess(machine_type: str, columns: Mapping[str, Column]) -> RuleResult | None:
    """The rule's answer from the latest readings (sensor → times in µs, values); None if there are too few."""
    return limits.assess(machine_type, columns) or shift.assess(columns)
