"""Costs of electricity by the tariffs of sites, hour by hour.

The price of an hour is the mean of its prices over the part of it that is within the range. A fixed charge per day or
month is divided evenly over the seconds of the local day or month, so that days with a change of the clock cost the
same. The demand charge is that of the highest mean power of an hour of the local month within the range, for the part
of the month that the range contains.
"""

import bisect
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
from aurum.sustainability.tariff import STEP_MINUTES, PriceSpec, TariffSpec

_STEP_US = STEP_MINUTES * 60_000_000


@dataclass(frozen=True, slots=True)
class TariffHours:
    """The tariffs of a site over the hours of a range.

    Attributes:
        prices: The prices of all tariffs.
        shares: For each price and hour, the share of the hour within the range in which the price applies.
        per_kwh: Price of energy in each hour.
        feed_in_per_kwh: Price of energy that is fed in, in each hour.
        fixed: Fixed charge of each hour.
        demand_per_kw: Demand charge per kW for each hour, which is a part of that for its month.
        month: For each hour, the local month in which it begins, as YYYY-MM.
        month_part: For each hour, the part of its month that it is.
    """

    prices: Sequence[PriceSpec]
    shares: Floats
    per_kwh: Floats
    feed_in_per_kwh: Floats
    fixed: Floats
    demand_per_kw: Floats
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
        currency: The currency of its tariffs.
        hours: The tariffs over the hours of the range.
        kwh: Energy of the site in each hour.
        machines: The number of its machines.
        demand: Its demand charges by month; empty if charges are not contained.
        charged: Whether the fixed and demand charges of the site are contained.
    """

    currency: str
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
        return sorted({site.currency for site in self.sites.values()})

    @property
    def demand(self) -> list[DemandCharge]:
        """The demand charges of all sites."""
        return [charge for site in self.sites.values() for charge in site.demand]

    def by_currency(self, used: Iterable[MachineUse]) -> dict[str, list[MachineUse]]:
        """Groups machines by the currency of their site; those of sites without a tariff are left out."""
        groups: dict[str, list[MachineUse]] = {currency: [] for currency in self.currencies}
        for use in used:
            if use.site in self.sites:
                groups[self.sites[use.site].currency].append(use)
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
    computed: dict[int, TariffHours] = {}  # by the id of a supply, which sites without an entry of their own share
    for site, members in group_use(used, "site").items():
        supply = plan.site_of(site)
        kwh = sum_energy(members, over).amount
        if not supply.tariffs:
            accounts.without_tariff.append(site)
            accounts.unpriced_kwh += math.fsum(kwh)
            continue
        hours = computed.get(id(supply)) or tariff_hours(supply.tariffs, ZoneInfo(supply.timezone), over)
        computed[id(supply)] = hours
        currency = supply.tariffs[0].currency
        demand = _demand_charges(site, hours, kwh, over) if whole_sites else ()
        accounts.sites[site] = SiteCosts(currency, hours, kwh, len(members), demand, charged=whole_sites)
        for price, share in zip(hours.prices, hours.shares, strict=True):
            if share.any():
                priced = math.fsum(kwh * share)
                accounts.prices.append(
                    PricedEnergy(site, currency, price.name, price.per_kwh, priced, priced * price.per_kwh)
                )
        _add_notes(accounts, hours, demand, whole_sites=whole_sites)
    return accounts


def _add_notes(
    accounts: CostAccounts, hours: TariffHours, demand: Sequence[DemandCharge], *, whole_sites: bool
) -> None:
    if not whole_sites:
        if hours.fixed.any() or hours.demand_per_kw.any():
            accounts.notes[
                "fixed and demand charges are not contained, since they are those of a whole site and only some of its "
                "machines are selected"
            ] = None
    elif hours.demand_per_kw.any():
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
            sold * site.hours.feed_in_per_kwh,
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
        if charge.kw > 0:
            share = kwh[peak] / site.kwh[peak]
            cost += np.where(_is_month(site.hours, charge.month), site.hours.demand_per_kw * charge.kw * share, 0.0)
    return cost


def _is_month(hours: TariffHours, month: str) -> npt.NDArray[np.bool_]:
    return np.array([each == month for each in hours.month])


def cost_total(name: str, currency: str, used: Sequence[MachineUse], hourly: HourlyCost, over: TimeRange) -> CostTotal:
    """Returns the sums of a group's costs by hour."""
    sums = {each.name: math.fsum(getattr(hourly, each.name)) for each in fields(HourlyCost)}
    cost = math.fsum([sums["energy_cost"], sums["fixed_cost"], sums["demand_cost"], -sums["feed_in_revenue"]])
    return CostTotal(name, currency, sum_energy(used, over).coverage, **sums, cost=cost)


def tariff_hours(tariffs: Sequence[TariffSpec], zone: ZoneInfo, over: TimeRange) -> TariffHours:
    """Returns what the tariffs of a site state for each hour of a range.

    Args:
        tariffs: The tariffs, in the order in which they begin.
        zone: The time zone of their days and hours.
        over: The time range.
    """
    steps = np.arange(over.start // _STEP_US, -(-over.end // _STEP_US)) * _STEP_US
    seconds = (np.minimum(steps + _STEP_US, over.end) - np.maximum(steps, over.start)) / 1e6
    hour = (steps // HOUR_US - over.first_hour).astype(np.int64)
    local = [datetime.fromtimestamp(step / 1e6, zone) for step in steps.tolist()]
    begins = [tariff.begins or date.min for tariff in tariffs]
    in_force = np.array([bisect.bisect_right(begins, moment.date()) - 1 for moment in local])
    before = np.cumsum([0, *(len(tariff.prices) for tariff in tariffs)])  # prices of earlier tariffs
    price = np.array(
        [
            before[index] + tariffs[index].rules.price_at(moment)
            for index, moment in zip(in_force.tolist(), local, strict=True)
        ]
    )
    days = np.array([_day_seconds(moment.date(), zone) for moment in local])
    months = np.array([_month_seconds(moment.year, moment.month, zone) for moment in local])
    prices = [each for tariff in tariffs for each in tariff.prices]

    def sum_by_hour(values: Floats) -> Floats:
        return np.bincount(hour, weights=values, minlength=over.hours).astype(np.float64)

    def stated(name: str) -> Floats:
        """Returns a field of the tariff in force at each step."""
        values: Floats = np.array([getattr(tariff, name) for tariff in tariffs], np.float64)[in_force]
        return values

    in_range = sum_by_hour(seconds)
    shares = np.array([sum_by_hour(np.where(price == index, seconds, 0.0)) for index in range(len(prices))]) / in_range
    month = [""] * over.hours
    for index, moment in zip(reversed(hour.tolist()), reversed(local), strict=True):
        month[index] = f"{moment:%Y-%m}"
    return TariffHours(
        prices,
        shares,
        np.array([each.per_kwh for each in prices]) @ shares,
        sum_by_hour(seconds * stated("feed_in_per_kwh")) / in_range,
        sum_by_hour(seconds * (stated("fixed_per_day") / days + stated("fixed_per_month") / months)),
        sum_by_hour(seconds * stated("demand_per_kw") / months),
        month,
        sum_by_hour(seconds / months),
    )


def _demand_charges(site: str, hours: TariffHours, kwh: Floats, over: TimeRange) -> tuple[DemandCharge, ...]:
    """Returns the charge of each month that has a whole hour in the range."""
    whole = _whole_hours(over)
    charges = []
    for month in dict.fromkeys(hours.month):
        of_month = _is_month(hours, month)
        per_kw = math.fsum(hours.demand_per_kw[of_month])
        if not (of_month & whole).any() or not per_kw:
            continue
        peak = int(np.where(of_month & whole, kwh, -np.inf).argmax())
        kw = max(0.0, float(kwh[peak]))  # the mean power of a whole hour
        share = math.fsum(hours.month_part[of_month])
        charges.append(DemandCharge(site, month, over.first_hour + peak, kw, share, per_kw * kw))
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
