"""What a rule answers."""

from dataclasses import dataclass
from typing import Literal

LEAST_READINGS = 12  # of one sensor, where there are no limits for the machine's type


@dataclass(frozen=True, slots=True)
class RuleResult:
    """risk: 0 to 1. shifts: sensor → (latest value, how far it is off, signed), the strongest first."""

    risk: float
    shifts: dict[str, tuple[float, float]]
    rule: Literal["limits", "shift"]
