"""Contracts for electricity, and their allocation to the consumption of each hour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contract:
    """An instrument by which a site buys electricity: a power purchase agreement, certificates or a supplier's tariff.

    What it covers of an hour is limited by `share`, `kwh` and `profile`. A limit that is None does not apply.

    Attributes:
        name: The name of the contract.
        factor: Its emission factor in kgCO2e/kWh.
        share: Share of the consumption of each hour.
        kwh: Energy of each hour in kWh.
        profile: Energy in kWh for each of the 24 hours of the day in UTC.
        begins: First hour, in hours since 1970.
        ends: End in hours since 1970, exclusive.
    """

    name: str
    factor: float
    share: float | None = None
    kwh: float | None = None
    profile: tuple[float, ...] | None = None
    begins: int | None = None
    ends: int | None = None


@dataclass(frozen=True, slots=True)
class Allocation:
    """The covered energy, matched[contract, hour], and the remaining energy, rest[hour], in kWh."""

    matched: Floats
    rest: Floats


def allocate(first: int, kwh: Floats, contracts: Sequence[Contract]) -> Allocation:
    """Allocates contracts to the consumption of each hour. A surplus in one hour does not cover another hour.

    Args:
        first: The first hour, in hours since 1970.
        kwh: Consumption of each hour in kWh.
        contracts: The contracts, in the order in which they are applied.
    """
    hours = np.arange(first, first + len(kwh))
    rest = kwh.astype(np.float64).copy()
    matched = np.zeros((len(contracts), len(kwh)))
    for index, contract in enumerate(contracts):
        limit = np.full(len(kwh), np.inf)
        if contract.share is not None:
            limit = np.minimum(limit, contract.share * kwh)
        if contract.kwh is not None:
            limit = np.minimum(limit, contract.kwh)
        if contract.profile is not None:
            limit = np.minimum(limit, np.array(contract.profile)[hours % 24])
        in_force = np.ones(len(kwh), dtype=bool)
        if contract.begins is not None:
            in_force &= hours >= contract.begins
        if contract.ends is not None:
            in_force &= hours < contract.ends
        matched[index] = np.where(in_force, np.minimum(limit, rest), 0.0)
        rest -= matched[index]
    return Allocation(matched, rest)
