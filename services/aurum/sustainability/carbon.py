"""Emissions of electricity by the GHG Protocol's Scope 2 Guidance (2015), hour by hour.

The location-based method applies the factor of the local grid to each kWh. The market-based method applies the factors
of contracts to what they cover, and the residual mix to the rest. If no residual mix is known, the grid's factor is
used, which the guidance allows if it is disclosed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.sustainability.contracts import Contract, allocate

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CarbonAccount:
    """Emissions of electricity, hour by hour.

    Attributes:
        kwh: Energy of each hour in kWh.
        location: Location-based emissions of each hour in kgCO2e; NaN without a factor.
        market: Market-based emissions of each hour in kgCO2e; NaN without a factor.
        matched: Energy that contracts covered, of each hour in kWh.
        by_contract: Energy in kWh that each contract covered in total.
    """

    kwh: Floats
    location: Floats
    market: Floats
    matched: Floats
    by_contract: tuple[float, ...]


def account_emissions(
    first: int, kwh: Floats, grid: Floats, residual: Floats, contracts: Sequence[Contract]
) -> CarbonAccount:
    """Computes the emissions of a site's energy by both methods.

    Args:
        first: The first hour, in hours since 1970.
        kwh: Energy of each hour in kWh.
        grid: Emission factor of the grid in each hour, in kgCO2e/kWh; NaN if it is not known.
        residual: Emission factor of the residual mix in each hour, in kgCO2e/kWh; NaN if it is not known.
        contracts: The contracts, in the order in which they are applied.
    """
    allocation = allocate(first, kwh, contracts)
    market: Floats = _emissions(allocation.rest, residual)
    for index, contract in enumerate(contracts):
        market = market + allocation.matched[index] * contract.factor
    location = _emissions(kwh, grid)
    return CarbonAccount(
        kwh,
        location,
        market,
        allocation.matched.sum(axis=0),
        tuple(math.fsum(row) for row in allocation.matched),
    )


def _emissions(kwh: Floats, factors: Floats) -> Floats:
    """Returns the emissions of each hour; those of no energy are 0, even if the factor is not known."""
    return np.where(kwh == 0, 0.0, kwh * factors)


@dataclass(frozen=True, slots=True)
class LoadShift:
    """The best start of a deferrable load.

    Attributes:
        start: The start with the least emissions, in hours since 1970.
        now: Emissions in kgCO2e if the load starts in the first hour.
        best: Emissions in kgCO2e if it starts in the best hour.
    """

    start: int
    now: float
    best: float

    @property
    def is_better(self) -> bool:
        """Whether the best start causes less emissions than a start in the first hour."""
        return self.best < self.now


def best_start(first: int, factors: Floats, kw: float, hours: int) -> LoadShift:
    """Finds the best start of a load.

    Args:
        first: The first hour, in hours since 1970.
        factors: Emission factors of consecutive hours, in kgCO2e/kWh.
        kw: Power of the load in kW.
        hours: Duration of the load in whole hours.

    Raises:
        ValueError: The load does not fit into the hours.
    """
    if not 1 <= hours <= len(factors):
        raise ValueError(f"a load of {hours} hours does not fit into {len(factors)} hours")
    sums = np.convolve(factors, np.ones(hours), "valid")
    index = int(sums.argmin())
    return LoadShift(first + index, kw * float(sums[0]), kw * float(sums[index]))
