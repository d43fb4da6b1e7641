"""Carbon accounts of sites with the emission factors and contracts that apply, and the best start of a load."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.api.emission_factors import EmissionFactors, factor_values
from aurum.sustainability.carbon import CarbonAccount, LoadShift, account_emissions, best_start
from aurum.sustainability.factors import EmissionFactor
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.sustainability.machine_use import MachineUse, group_use, sum_energy
from aurum.sustainability.plan import AccountingPlan

_MAX_LISTED = 100  # hours without a factor that an account lists


@dataclass(frozen=True, slots=True)
class ContractUse:
    """The energy that a contract covered at a site.

    Attributes:
        site: The site.
        name: The contract.
        kg_per_kwh: Its emission factor.
        matched_kwh: Energy that it covered in the hours in which the energy was used.
    """

    site: str
    name: str
    kg_per_kwh: float
    matched_kwh: float


@dataclass(frozen=True, slots=True)
class FactorSummary:
    """The emission factors of a zone and method that an account used.

    Attributes:
        zone: The grid zone.
        method: location or residual.
        source: Their publications.
        year: The latest year for which they were published.
        kg_per_kwh_least: The smallest factor.
        kg_per_kwh_most: The largest factor.
        hours: The number of hours.
        stale_hours: The number of hours for which another hour's factor was used.
        missing_hours: The number of hours for which the provider has no factor.
        missing: The first of these hours, in hours since 1970.
    """

    zone: str
    method: str
    source: str
    year: int
    kg_per_kwh_least: float
    kg_per_kwh_most: float
    hours: int
    stale_hours: int
    missing_hours: int
    missing: tuple[int, ...]


@dataclass(slots=True)
class SiteAccounts:
    """The carbon accounts of sites.

    Attributes:
        accounts: The account of each site.
        contracts: What each contract covered.
        notes: Remarks about the factors, as an ordered set.
        missing_factor_kwh: Energy in the hours for which the provider has no factor.
    """

    accounts: dict[str, CarbonAccount] = field(default_factory=dict)
    contracts: list[ContractUse] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    missing_factor_kwh: float = 0.0
    _factors: dict[tuple[str, str], Sequence[EmissionFactor]] = field(default_factory=dict)  # by zone and method
    _first_hour: int = 0

    @property
    def factors(self) -> list[FactorSummary]:
        """The emission factors that were used, by zone and method."""
        return [
            _summarize(zone, method, self._first_hour, factors) for (zone, method), factors in self._factors.items()
        ]

    def matched_kwh(self, over: TimeRange) -> Floats:
        """Returns the energy of each hour that contracts covered in that hour, over all sites."""
        matched = np.zeros(over.hours)
        for account in self.accounts.values():
            matched += account.matched
        return matched

    async def add_site(
        self, site: str, used: Sequence[MachineUse], over: TimeRange, plan: AccountingPlan, factors: EmissionFactors
    ) -> None:
        """Adds the account of a site. Raises InvalidArgumentError if its zone has no emission factors."""
        self._first_hour = over.first_hour
        supply = plan.site_of(site)
        grid = residual = await self._factors_for(supply.zone, over, factors)
        if (supply.zone, "residual") in factors.table.factors:
            residual, _ = await factors.factors_for(supply.zone, "residual", over.first_hour, over.hours)
            self._factors[supply.zone, "residual"] = residual
        else:
            self.notes[f"no residual mix of zone {supply.zone} is known, so the grid's factor is used instead"] = None
        contracts = [part.contract() for part in supply.contracts]
        kwh = sum_energy(used, over).amount
        self._note_missing(supply.zone, grid, kwh)
        account = account_emissions(over.first_hour, kwh, factor_values(grid), factor_values(residual), contracts)
        self.accounts[site] = account
        self.contracts += [
            ContractUse(site, contract.name, contract.factor, matched)
            for contract, matched in zip(contracts, account.by_contract, strict=True)
        ]

    def _note_missing(self, zone: str, grid: Sequence[EmissionFactor], kwh: Floats) -> None:
        missing = np.array([factor.missing for factor in grid], dtype=bool)
        if not missing.any():
            return
        self.missing_factor_kwh += math.fsum(kwh[missing])
        known = not np.isnan(factor_values(grid)).any()
        self.notes[
            f"the provider has no factor of zone {zone} for {missing.sum()} of {len(grid)} hours; "
            + ("that of the year is used instead" if known else "their emissions are not known and not contained")
        ] = None

    async def _factors_for(self, zone: str, over: TimeRange, factors: EmissionFactors) -> list[EmissionFactor]:
        grid, problem = await factors.factors_for(zone, "location", over.first_hour, over.hours)
        self._factors[zone, "location"] = grid
        if problem:
            self.notes[problem] = None
        return grid


async def account_sites(
    used: Sequence[MachineUse], over: TimeRange, plan: AccountingPlan, factors: EmissionFactors
) -> SiteAccounts:
    """Computes the carbon account of each site.

    Args:
        used: The machines, all with a power meter.
        over: The time range.
        plan: The accounting plan, with the zone and the contracts of each site.
        factors: The emission factors.

    Raises:
        InvalidArgumentError: A site's zone has no emission factors.
    """
    sites = SiteAccounts()
    for site, members in group_use(used, "site").items():
        await sites.add_site(site, members, over, plan, factors)
    return sites


@dataclass(frozen=True, slots=True)
class LoadHint:
    """The best start of a deferrable load.

    Attributes:
        zone: The grid zone of its site.
        shift: The best start with its emissions, compared with a start now.
        note: Where the factors are from, and what limits them.
    """

    zone: str
    shift: LoadShift
    note: str


async def find_best_start(  # noqa: PLR0917 - a load and its limits
    plan: AccountingPlan,
    factors: EmissionFactors,
    site: str,
    first_hour: int,
    kw: float,
    duration_hours: int,
    within_hours: int,
) -> LoadHint:
    """Finds the start of a load with the least emissions.

    Args:
        plan: The accounting plan, with the zone of the site.
        factors: The emission factors.
        site: The site of the load.
        first_hour: The present hour, in hours since 1970.
        kw: Power of the load in kW.
        duration_hours: Duration of the load.
        within_hours: Hours within which the load must be done.

    Raises:
        InvalidArgumentError: The site's zone has no emission factors.
    """
    zone = plan.site_of(site).zone
    hourly, problem = await factors.factors_for(zone, "location", first_hour, within_hours)
    values = factor_values(hourly)
    # An hour without any factor is not preferred
    shift = best_start(first_hour, np.where(np.isnan(values), np.nanmax(values), values), kw, duration_hours)
    sources = "; ".join(dict.fromkeys(factor.source for factor in hourly))
    note = f"{'' if shift.is_better else 'no hour is better than now '}by {sources}"
    if any(factor.stale for factor in hourly):
        note = f"{note}; for some hours an earlier factor is used, so their differences are unknown"
    if any(factor.missing for factor in hourly):
        note = f"{note}; the provider has no factor for some hours, so their differences are unknown"
    return LoadHint(zone, shift, f"{note}; {problem}" if problem else note)


def _summarize(zone: str, method: str, first_hour: int, factors: Sequence[EmissionFactor]) -> FactorSummary:
    values = [factor.kg_per_kwh for factor in factors if not math.isnan(factor.kg_per_kwh)]
    missing = [first_hour + index for index, factor in enumerate(factors) if factor.missing]
    return FactorSummary(
        zone,
        method,
        "; ".join(dict.fromkeys(factor.source for factor in factors)),
        max(factor.year for factor in factors),
        min(values),
        max(values),
        len(factors),
        sum(factor.stale for factor in factors),
        len(missing),
        tuple(missing[:_MAX_LISTED]),
    )
