"""Costs of electricity by the tariffs of sites, hour by hour.

The price of an hour is the mean of its prices over the part of it that is within the range. A fixed charge per day or
month is divided evenly over the seconds of the local day or month, so that days with a change of the clock cost the
same. The demand charge is that of the highest mean power of an hour of the local month within the range, for the part
of the month that the range contains.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.sustainability.machine_use import MachineUse, group_use, sum_energy, sum_fed_in
from aurum.sustainability.plan import AccountingPlan
from aurum.sustainability.tariff import STEP_MINUTES, TariffSpec

_STEP_US = STEP_MINUTES * 60_000_000


@dataclass(frozen=True, slots=True)
class TariffHours:
    """A tariff over the hours of a range.

    Attributes:
        shares: For each price and hour, the share of the hour within the range in which the price applies.
        per_kwh: Price of each hour.
        fixed: Fixed charge of each hour.
        month: For each hour, the local month in which it begins, as YYYY-MM.
        month_part: For each hour, the part of its month that it is.
    """

    shares: Floats
    per_kwh: Floats
    fixed: Floats
    month: Sequence[str]
    month_part: Floats


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """The demand charge of a month.

    Attributes:
        site: The site.
        month: The local month, as YYYY-MM.
        hour: The hour with the highest mean power, in hours since 1970.
        kw: Its mean power.
        month_share: The share of the month that is within the range, to which the charge is reduced.
        cost: The charge.
    """

    site: str
    month: str
    hour: int
    kw: float
    month_share: float
    cost: float


@dataclass(frozen=True, slots=True)
class PricedEnergy:
    """The energy of a site at one of its prices."""

    site: str
    currency: str
    name: str
    per_kwh: float
    energy_kwh: float
    cost: float


@dataclass(frozen=True, slots=True)
class HourlyCost:
    """Energy in kWh, and costs of a group of machines in one currency, by hour."""

    energy_kwh: Floats
    fed_in_kwh: Floats
    energy_cost: Floats
    feed_in_revenue: Floats
    fixed_cost: Floats
    demand_cost: Floats

    @property
    def cost(self) -> Floats:
        """The cost of each hour: of energy, fixed and of demand, less the revenue for energy that was fed in."""
        return self.energy_cost + self.fixed_cost + self.demand_cost - self.feed_in_revenue


@dataclass(frozen=True, slots=True)
class CostTotal:
    """The costs of a group of machines in one currency. The fields are the sums of those of HourlyCost."""

    name: str
    currency: str
    coverage: float
    energy_kwh: float
    fed_in_kwh: float
    energy_cost: float
    feed_in_revenue: float
    fixed_cost: float
    demand_cost: float
    cost: float


@dataclass(frozen=True, slots=True)
class SiteCosts:
    """What the costs of a site's machines are computed from.

    Attributes:
        tariff: The tariff.
        timezone: The time zone of the site.
        hours: The tariff over the hours of the range.
        kwh: Energy of the site in each hour.
        machines: The number of its machines.
        demand: Its demand charges by month; empty if charges are not contained.
        charged: Whether the fixed and demand charges of the site are contained.
    """

    tariff: TariffSpec
    timezone: str
    hours: TariffHours
    kwh: Floats
    machines: int
    demand: tuple[DemandCharge, ...]
    charged: bool


@dataclass(slots=True)
class CostAccounts:
    """The costs of sites.

    Attributes:
        sites: The sites with a tariff.
        prices: The energy at each price.
        without_tariff: The sites without one.
        unpriced_kwh: Their energy.
        notes: Remarks about what is not contained, as an ordered set.
    """

    sites: dict[str, SiteCosts] = field(default_factory=dict)
    prices: list[PricedEnergy] = field(default_factory=list)
    without_tariff: list[str] = field(default_factory=list)
    unpriced_kwh: float = 0.0
    notes: dict[str, None] = field(default_factory=dict)

    @property
    def currencies(self) -> list[str]:
        """The currencies of the tariffs, sorted."""
        return sorted({site.tariff.currency for site in self.sites.values()})

    @property
    def demand(self) -> list[DemandCharge]:
        """The demand charges of all sites."""
        return [charge for site in self.sites.values() for charge in site.demand]

    def by_currency(self, used: Iterable[MachineUse]) -> dict[str, list[MachineUse]]:
        """Groups machines by the currency of their site; those of sites without a tariff are left out."""
        groups: dict[str, list[MachineUse]] = {currency: [] for currency in self.currencies}
        for use in used:
            if use.site in self.sites:
                groups[self.sites[use.site].tariff.currency].append(use)
        return {currency: members for currency, members in groups.items() if members}


def is_metered(use: MachineUse) -> bool:
    """Returns whether energy of a machine, drawn or fed in, is metered, so that it has costs."""
    return use.energy is not None or use.fed_in is not None


def account_costs(
    used: Sequence[MachineUse], over: TimeRange, plan: AccountingPlan, *, whole_sites: bool
) -> CostAccounts:
    """Computes the costs of each site.

    Args:
        used: The machines whose energy, drawn or fed in, is metered.
        over: The time range.
        plan: The accounting plan, with the tariffs of sites.
        whole_sites: Whether `used` has all machines of each site. Otherwise fixed and demand charges, which a site has
            as a whole, are not contained.
    """
    accounts = CostAccounts()
    computed: dict[tuple[int, str], TariffHours] = {}
    for site, members in group_use(used, "site").items():
        supply = plan.site_of(site)
        kwh = sum_energy(members, over).amount
        if supply.tariff is None:
            accounts.without_tariff.append(site)
            accounts.unpriced_kwh += math.fsum(kwh)
            continue
        key = id(supply.tariff), supply.timezone  # sites without an entry of their own share a tariff
        hours = computed.get(key) or tariff_hours(supply.tariff, ZoneInfo(supply.timezone), over)
        computed[key] = hours
        demand = _demand_charges(site, supply.tariff, hours, kwh, over) if whole_sites else ()
        accounts.sites[site] = SiteCosts(
            supply.tariff, supply.timezone, hours, kwh, len(members), demand, charged=whole_sites
        )
        for price, share in zip(supply.tariff.prices, hours.shares, strict=True):
            priced = math.fsum(kwh * share)
            accounts.prices.append(
                PricedEnergy(site, supply.tariff.currency, price.name, price.per_kwh, priced, priced * price.per_kwh)
            )
        _add_notes(accounts, supply.tariff, demand, whole_sites=whole_sites)
    return accounts


def _add_notes(
    accounts: CostAccounts, tariff: TariffSpec, demand: Sequence[DemandCharge], *, whole_sites: bool
) -> None:
    has_charges = tariff.fixed_per_day or tariff.fixed_per_month or tariff.demand_per_kw
    if has_charges and not whole_sites:
        accounts.notes[
            "fixed and demand charges are not contained, since they are those of a whole site and only some of its "
            "machines are selected"
        ] = None
    elif tariff.demand_per_kw:
        accounts.notes["demand charges are by the highest mean power of an hour"] = None
        if not demand:
            accounts.notes["the range contains no whole hour, so there is no demand charge"] = None
        elif any(charge.month_share < 0.999 for charge in demand):
            accounts.notes[
                "the range contains a part of a month, to whose share the demand charge is reduced; a higher power in "
                "the rest of the month would raise it"
            ] = None


def attribute_costs(used: Sequence[MachineUse], sites: dict[str, SiteCosts], over: TimeRange) -> HourlyCost:
    """Attributes the costs of sites to machines, so that the costs of all groups add up to those of the sites.

    Energy has the price of the hour of its use. A fixed charge is divided by the energy in each hour, or evenly in an
    hour without energy. A demand charge is divided by the energy in the hour of the highest power.

    Args:
        used: The machines, all of one currency.
        sites: The costs of their sites.
        over: The time range.
    """
    total = HourlyCost(*(np.zeros(over.hours) for _ in fields(HourlyCost)))
    for name, members in group_use(used, "site").items():
        site = sites[name]
        kwh = sum_energy(members, over).amount
        fed_in = sum_fed_in(members, over)
        sold = np.zeros(over.hours) if fed_in is None else fed_in.amount
        part = HourlyCost(
            kwh,
            sold,
            kwh * site.hours.per_kwh,
            sold * site.tariff.feed_in_per_kwh,
            _fixed_cost(site, kwh, len(members)),
            _demand_cost(site, kwh, over.first_hour),
        )
        total = HourlyCost(*(getattr(total, each.name) + getattr(part, each.name) for each in fields(HourlyCost)))
    return total


def _fixed_cost(site: SiteCosts, kwh: Floats, machines: int) -> Floats:
    if not site.charged:
        return np.zeros(len(kwh))
    share = np.where(site.kwh > 0, kwh / np.where(site.kwh > 0, site.kwh, 1.0), machines / site.machines)
    return site.hours.fixed * share


def _demand_cost(site: SiteCosts, kwh: Floats, first_hour: int) -> Floats:
    cost = np.zeros(len(kwh))
    for charge in site.demand:
        peak = charge.hour - first_hour
        if site.kwh[peak] <= 0:
            continue  # the charge is 0
        of_month = np.array([month == charge.month for month in site.hours.month])
        part = np.where(of_month, site.hours.month_part, 0.0)
        cost += charge.cost * (kwh[peak] / site.kwh[peak]) * part / part.sum()
    return cost


def cost_total(name: str, currency: str, used: Sequence[MachineUse], hourly: HourlyCost, over: TimeRange) -> CostTotal:
    """Returns the sums of a group's costs by hour."""
    sums = {each.name: math.fsum(getattr(hourly, each.name)) for each in fields(HourlyCost)}
    cost = math.fsum([sums["energy_cost"], sums["fixed_cost"], sums["demand_cost"], -sums["feed_in_revenue"]])
    return CostTotal(name, currency, sum_energy(used, over).coverage, **sums, cost=cost)


def tariff_hours(tariff: TariffSpec, zone: ZoneInfo, over: TimeRange) -> TariffHours:
    """Returns what a tariff states for each hour of a range.

    Args:
        tariff: The tariff.
        zone: The time zone of its days and hours.
        over: The time range.
    """
    steps = np.arange(over.start // _STEP_US, -(-over.end // _STEP_US)) * _STEP_US
    seconds = (np.minimum(steps + _STEP_US, over.end) - np.maximum(steps, over.start)) / 1e6
    hour = (steps // HOUR_US - over.first_hour).astype(np.int64)
    local = [datetime.fromtimestamp(step / 1e6, zone) for step in steps.tolist()]
    rules = tariff.rules
    price = np.array([rules.price_at(moment) for moment in local])
    days = np.array([_day_seconds(moment.date(), zone) for moment in local])
    months = np.array([_month_seconds(moment.year, moment.month, zone) for moment in local])

    def sum_by_hour(values: Floats) -> Floats:
        return np.bincount(hour, weights=values, minlength=over.hours).astype(np.float64)

    in_range = sum_by_hour(seconds)
    shares = np.array([sum_by_hour(np.where(price == index, seconds, 0.0)) for index in range(len(tariff.prices))])
    shares = shares / np.where(in_range > 0, in_range, 1.0)
    month = [""] * over.hours
    for index, moment in zip(reversed(hour.tolist()), reversed(local), strict=True):
        month[index] = f"{moment:%Y-%m}"
    return TariffHours(
        shares,
        np.array([each.per_kwh for each in tariff.prices]) @ shares,
        sum_by_hour(seconds * (tariff.fixed_per_day / days + tariff.fixed_per_month / months)),
        month,
        sum_by_hour(seconds / months),
    )


def _demand_charges(
    site: str, tariff: TariffSpec, hours: TariffHours, kwh: Floats, over: TimeRange
) -> tuple[DemandCharge, ...]:
    """Returns the charge of each month that has a whole hour in the range."""
    if not tariff.demand_per_kw:
        return ()
    whole = _whole_hours(over)
    charges = []
    for month in dict.fromkeys(hours.month):
        of_month = np.array([each == month for each in hours.month])
        if not (of_month & whole).any():
            continue
        peak = int(np.where(of_month & whole, kwh, -1.0).argmax())
        share = math.fsum(hours.month_part[of_month])
        kw = float(kwh[peak])  # the mean power of a whole hour
        charges.append(DemandCharge(site, month, over.first_hour + peak, kw, share, tariff.demand_per_kw * kw * share))
    return tuple(charges)


def _whole_hours(over: TimeRange) -> npt.NDArray[np.bool_]:
    starts = (over.first_hour + np.arange(over.hours)) * HOUR_US
    return (starts >= over.start) & (starts + HOUR_US <= over.end)


@lru_cache(maxsize=4096)
def _day_seconds(day: date, zone: ZoneInfo) -> float:
    """Returns the length of a local day: 23 or 25 hours where the clock is changed."""
    return _midnight(date.fromordinal(day.toordinal() + 1), zone) - _midnight(day, zone)


@lru_cache(maxsize=1024)
def _month_seconds(year: int, month: int, zone: ZoneInfo) -> float:
    """Returns the length of a local month."""
    following = date(year + month // 12, month % 12 + 1, 1)
    return _midnight(following, zone) - _midnight(date(year, month, 1), zone)


def _midnight(day: date, zone: ZoneInfo) -> float:
    """Returns the seconds since 1970 at which a local day begins."""
    return datetime.combine(day, time(), zone).timestamp()
