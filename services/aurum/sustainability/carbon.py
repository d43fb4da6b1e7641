"""Emissions of electricity by the GHG Protocol's Scope 2 Guidance (2015), hour by hour.

Location-based: each kWh at the factor of the grid that it was taken from. Market-based: what contracts cover at their
own factors, the rest at the residual mix; where none is known, at the grid's factor, which the guidance allows if it
is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aurum.sustainability.contracts import Contract, allocate

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Carbon:
    """Of each hour: kwh; location and market, in kgCO2e; matched, the kWh that contracts covered. by_contract: kWh that
    each of them covered."""

    kwh: Floats
    location: Floats
    market: Floats
    matched: Floats
    by_contract: tuple[float, ...]


def account(first: int, kwh: Floats, grid: Floats, residual: Floats, contracts: Sequence[Contract]) -> Carbon:
    """first: hours since 1970. kwh: of each hour. grid, residual: kgCO2e/kWh of each hour."""
    allocation = allocate(first, kwh, contracts)
    market: Floats = allocation.rest * residual
    for index, contract in enumerate(contracts):
        market = market + allocation.matched[index] * contract.factor
    location: Floats = kwh * grid
    return Carbon(
        kwh,
        location,
        market,
        allocation.matched.sum(axis=0),
        tuple(math.fsum(row) for row in allocation.matched),
    )


@dataclass(frozen=True, slots=True)
class Hint:
    """When a load would emit least. start: hours since 1970. now, best: kgCO2e if it starts in the first hour, or
    then."""

    start: int
    now: float
    best: float


def best_start(first: int, factors: Floats, kw: float, hours: int) -> Hint:
    """For a load of `kw` that runs so many whole hours in a row, anywhere within the hours whose factors are given.

    Raises ValueError if they are fewer.
    """
    if not 1 <= hours <= len(factors):
        raise ValueError(f"a load of {hours} hours does not fit into {len(factors)}")
    sums = np.convolve(factors, np.ones(hours), "valid")
    index = int(sums.argmin())
    return Hint(first + index, kw * float(sums[0]), kw * float(sums[index]))
