"""Electric power from measured currents, and specific consumption."""

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def power_of_current(amperes: Floats, volts: float, power_factor: float, phases: int) -> Floats:
    """Returns the power in kW for the current in each conductor (as in IEC 60034-1 for motors).

    It is √3·U·I·cos φ for three phases, with U between conductors, and U·I·cos φ for one phase. It is proportional to
    the current, so an integral of the current gives one of the power.

    Args:
        amperes: The current in A at each time.
        volts: The voltage in V.
        power_factor: cos φ.
        phases: 1 or 3.
    """
    factor = (math.sqrt(3) if phases == 3 else 1.0) * volts * power_factor / 1000
    power: Floats = amperes * factor
    return power


def specific_consumption(amount: float, produced: float) -> float | None:
    """Returns the consumption per produced unit, or None if nothing was produced."""
    return amount / produced if produced > 0 else None
