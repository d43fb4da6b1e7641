"""The result of a fallback rule."""

from dataclasses import dataclass
from typing import Literal

LATEST = 8  # readings whose mean is the latest value
LEAST_READINGS = 12  # of one sensor, for machine types without limits


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The assessment of a machine.

    Attributes:
        risk: From 0 to 1; not a probability.
        shifts: For each sensor, the latest value and its signed deviation from normal, the worst first.
        rule: The rule that was applied.
    """

    risk: float
    shifts: dict[str, tuple[float, float]]
    rule: Literal["limits", "shift"]
