"""Electric power from what is measured, and what energy is made of it."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def power_of_current(amperes: Floats, volts: float, power_factor: float, phases: int) -> Floats:
    """kW from the current in each conductor: √3·U·I·cos φ for three phases, with U between conductors; U·I·cos φ for
    one (IEC 60034-1 uses the same for motors)."""
    factor = (math.sqrt(3) if phases == 3 else 1.0) * volts * power_factor / 1000
    power: Floats = amperes * factor
    return power


def specific(amount: float, produced: float) -> float | None:
    """Energy, or water, per unit that was produced; None if nothing was."""
    return amount / produced if produced > 0 else None
