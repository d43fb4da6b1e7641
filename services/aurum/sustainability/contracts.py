"""Contracts for electricity, and what of each hour's consumption they cover."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contract:
    """An instrument by which a site buys: a power purchase agreement, certificates, a supplier's tariff.

    factor: kgCO2e/kWh. Of each hour it covers `share` of what is used, and up to `kwh` of it, or up to what `profile`
    has of the hour of the day (24 numbers, kWh, UTC); those that are None do not limit. begins, ends: hours since 1970,
    the latter exclusive.
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
    """matched[contract, hour] and rest[hour], in kWh."""

    matched: Floats
    rest: Floats


def allocate(first: int, kwh: Floats, contracts: Sequence[Contract]) -> Allocation:
    """Hour by hour, in the order of the contracts: what one hour has too much is of no use to another.

    first: hours since 1970 of the first element of kwh.
    """
    hours = np.arange(first, first + len(kwh))
    rest = kwh.astype(np.float64).copy()
    matched = np.zeros((len(contracts), len(kwh)))
    for index, contract in enumerate(contracts):
        most = np.full(len(kwh), np.inf)
        if contract.share is not None:
            most = np.minimum(most, contract.share * kwh)
        if contract.kwh is not None:
            most = np.minimum(most, contract.kwh)
        if contract.profile is not None:
            most = np.minimum(most, np.array(contract.profile)[hours % 24])
        runs = np.ones(len(kwh), dtype=bool)
        if contract.begins is not None:
            runs &= hours >= contract.begins
        if contract.ends is not None:
            runs &= hours < contract.ends
        matched[index] = np.where(runs, np.minimum(most, rest), 0.0)
        rest -= matched[index]
    return Allocation(matched, rest)
