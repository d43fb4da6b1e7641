"""Costs of known use: prices by local time, changes of the clock, charges, cut hours, and sums that add up."""

import itertools
import math
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.cost import CostAccounts, account_costs, attribute_costs, cost_total, tariff_hours
from aurum.sustainability.hourly import HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import GroupBy, MachineUse, group_use
from aurum.sustainability.plan import AccountingPlan, Meters, SitePlan
from aurum.sustainability.tariff import TariffSpec

BERLIN = "Europe/Berlin"
NIGHT_AND_DAY = {
    "currency": "EUR",
    "prices": [
        {"name": "night", "per_kwh": 0.1, "hours": ["22:00-06:00"]},
        {"name": "day", "per_kwh": 0.3},
    ],
}


def between(start: str, end: str, zone: str = BERLIN) -> TimeRange:
    edges = [datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)) for text in (start, end)]
    first, last = (round(edge.timestamp() * 1e6) for edge in edges)
    return TimeRange(first, last)


def tariff(**fields: Any) -> TariffSpec:
    return TariffSpec.model_validate({**NIGHT_AND_DAY, **fields})


def use(name: str, kw: float, over: TimeRange, site: str = "hall", *, fed_in_kw: float | None = None) -> MachineUse:
    """A machine with constant power, of one line for each letter that its name begins with."""
    starts = (over.first_hour + np.arange(over.hours)) * HOUR_US
    seconds = (np.minimum(starts + HOUR_US, over.end) - np.maximum(starts, over.start)) / 1e6
    amounts = HourlyAmounts(over.first_hour, kw * seconds / 3600, seconds, seconds)
    fed_in = None if fed_in_kw is None else HourlyAmounts(over.first_hour, fed_in_kw * seconds / 3600, seconds, seconds)
    return MachineUse(name, "press", site, name[0], Meters(), amounts, fed_in=fed_in)


def plan_of(spec: TariffSpec, zone: str = BERLIN) -> AccountingPlan:
    return AccountingPlan(meters={}, sites={"hall": SitePlan(timezone=zone, tariffs=(spec,))})


def account(used: list[MachineUse], spec: TariffSpec, over: TimeRange, zone: str = BERLIN) -> CostAccounts:
    return account_costs(used, over, plan_of(spec, zone), whole_sites=True)


def total_of(used: list[MachineUse], accounts: CostAccounts, over: TimeRange) -> dict[str, float]:
    total = cost_total("total", "EUR", used, attribute_costs(used, accounts.sites, over), over)
    return {
        name: getattr(total, name) for name in ("energy_cost", "feed_in_revenue", "fixed_cost", "demand_cost", "cost")
    }


@pytest.mark.parametrize(
    ("day", "following", "night_hours"),
    [("2026-03-28", "2026-03-29", 8), ("2026-03-29", "2026-03-30", 7), ("2026-10-25", "2026-10-26", 9)],
)
def test_day_with_changed_clock_has_its_own_night(day: str, following: str, night_hours: int) -> None:
    """On the day in spring the night is an hour shorter, in autumn an hour longer; the day has 16 hours on all."""
    over = between(day, following)
    used = [use("a", 10, over)]
    spec = tariff(fixed_per_day=24.0)
    accounts = account(used, spec, over)
    found = total_of(used, accounts, over)
    assert found["energy_cost"] == pytest.approx(night_hours * 10 * 0.1 + 16 * 10 * 0.3)
    assert found["fixed_cost"] == pytest.approx(24.0)
    by_name = {price.name: price.energy_kwh for price in accounts.prices}
    assert by_name == {"night": pytest.approx(night_hours * 10), "day": pytest.approx(160)}


@pytest.mark.parametrize("month", ["2026-02", "2026-03", "2026-10", "2026-12"])
def test_fixed_and_demand_charges_of_a_whole_month_are_exact(month: str) -> None:
    year, number = int(month[:4]), int(month[5:])
    following = f"{year + number // 12}-{number % 12 + 1:02}"
    over = between(f"{month}-01", f"{following}-01")
    used = [use("a", 10, over), use("b", 30, over)]
    used[1].energy.amount[100] = 55.0  # type: ignore[union-attr] - the highest hour
    accounts = account(used, tariff(fixed_per_month=310.0, demand_per_kw=9.0), over)
    found = total_of(used, accounts, over)
    assert found["fixed_cost"] == pytest.approx(310.0)
    assert found["demand_cost"] == pytest.approx(9.0 * 65.0)
    (charge,) = accounts.demand
    assert (charge.month, charge.hour, charge.kw) == (month, over.first_hour + 100, pytest.approx(65.0))
    assert list(accounts.notes) == ["demand charges are by the highest mean power of an hour"]


def test_demand_charge_of_part_of_a_month_is_reduced_and_noted() -> None:
    over = between("2026-06-01", "2026-06-16")
    used = [use("a", 10, over)]
    accounts = account(used, tariff(demand_per_kw=9.0), over)
    assert total_of(used, accounts, over)["demand_cost"] == pytest.approx(9.0 * 10 / 2)
    assert any("a part of a month" in note for note in accounts.notes)


def test_demand_charge_ignores_hours_that_the_range_cuts() -> None:
    over = between("2026-06-01T00:30", "2026-06-01T03:00")
    used = [use("a", 10, over)]
    used[0].energy.amount[0] = 1000.0  # type: ignore[union-attr] - in the cut hour
    (charge,) = account(used, tariff(demand_per_kw=9.0), over).demand
    assert charge.kw == pytest.approx(10)


def test_range_without_a_whole_hour_has_no_demand_charge() -> None:
    over = between("2026-06-01T00:30", "2026-06-01T01:00")
    used = [use("a", 10, over)]
    accounts = account(used, tariff(demand_per_kw=9.0), over)
    assert total_of(used, accounts, over)["demand_cost"] == 0
    assert "the range contains no whole hour, so there is no demand charge" in accounts.notes


def test_hour_that_the_range_cuts_costs_by_its_part() -> None:
    """A price that changes at half past costs what it is in the part of the hour within the range."""
    spec = tariff(
        prices=[{"name": "late", "per_kwh": 0.5, "hours": ["08:30-09:00"]}, {"name": "rest", "per_kwh": 0.1}],
        fixed_per_day=24.0,
    )
    whole = tariff_hours([spec], ZoneInfo(BERLIN), between("2026-06-01T08:00", "2026-06-01T09:00"))
    assert whole.per_kwh.tolist() == [pytest.approx(0.3)]
    cut = tariff_hours([spec], ZoneInfo(BERLIN), between("2026-06-01T08:20", "2026-06-01T08:50"))
    assert cut.per_kwh.tolist() == [pytest.approx((10 * 0.1 + 20 * 0.5) / 30)]
    assert cut.fixed.tolist() == [pytest.approx(0.5)]


def test_adjacent_ranges_cost_what_the_whole_range_costs() -> None:
    spec = tariff(fixed_per_day=5.0, fixed_per_month=100.0, feed_in_per_kwh=0.08)
    edges = ["2026-03-28T13:20", "2026-03-29T02:45", "2026-03-29T21:50", "2026-04-02T06:05"]
    costs = []
    for start, end in [*itertools.pairwise(edges), (edges[0], edges[-1])]:
        over = between(start, end)
        used = [use("a", 12, over, fed_in_kw=3)]
        costs.append(total_of(used, account(used, spec, over), over))
    for name in costs[0]:
        assert math.fsum(part[name] for part in costs[:-1]) == pytest.approx(costs[-1][name]), name


@pytest.mark.parametrize("zone", ["Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"])
def test_zone_off_the_full_hour_has_exact_days(zone: str) -> None:
    """The hours of the account are those of UTC; local days begin within them."""
    over = between("2026-04-05", "2026-04-06", zone)  # Lord Howe sets its clock back by half an hour
    used = [use("a", 10, over)]
    accounts = account(used, tariff(fixed_per_day=7.0), over, zone)
    found = total_of(used, accounts, over)
    hours = (over.end - over.start) / HOUR_US
    assert found["fixed_cost"] == pytest.approx(7.0)
    assert found["energy_cost"] == pytest.approx((hours - 16) * 10 * 0.1 + 16 * 10 * 0.3)


@pytest.mark.parametrize("by", ["machine", "line", "site"])
def test_costs_of_groups_add_up_to_the_total(by: GroupBy) -> None:
    over = between("2026-10-20T05:15", "2026-11-03T17:40")
    rng = np.random.default_rng(7)
    used = [use(name, 10, over, fed_in_kw=2) for name in ("a1", "a2", "b1", "c1")]
    for each in used:
        assert each.energy is not None
        each.energy.amount[:] *= rng.uniform(0, 2, over.hours)
        each.energy.amount[40:50] = 0.0  # hours in which the site uses nothing
    spec = tariff(fixed_per_day=4.0, fixed_per_month=90.0, demand_per_kw=8.0, feed_in_per_kwh=0.07)
    accounts = account(used, spec, over)
    total = total_of(used, accounts, over)
    groups = [total_of(members, accounts, over) for members in group_use(used, by).values()]
    for name, value in total.items():
        assert math.fsum(group[name] for group in groups) == pytest.approx(value), name
        assert value > 0
    assert math.fsum(price.cost for price in accounts.prices) == pytest.approx(total["energy_cost"])
    assert math.fsum(charge.cost for charge in accounts.demand) == pytest.approx(total["demand_cost"])


def test_charges_of_a_site_are_not_those_of_some_machines() -> None:
    over = between("2026-06-01", "2026-06-02")
    used = [use("a", 10, over)]
    plan = plan_of(tariff(fixed_per_day=4.0, demand_per_kw=8.0))
    accounts = account_costs(used, over, plan, whole_sites=False)
    found = total_of(used, accounts, over)
    assert (found["fixed_cost"], found["demand_cost"], accounts.demand) == (0, 0, [])
    assert any("fixed and demand charges are not contained" in note for note in accounts.notes)


def test_site_without_tariff_is_named_with_its_energy() -> None:
    over = between("2026-06-01", "2026-06-02")
    used = [use("a", 10, over), use("b", 5, over, "yard")]
    accounts = account(used, tariff(), over)
    assert (accounts.without_tariff, accounts.unpriced_kwh) == (["yard"], pytest.approx(120))
    assert [each.machine_id for each in accounts.by_currency(used)["EUR"]] == ["a"]


def test_later_tariff_applies_from_its_day_on() -> None:
    """All its prices and charges; a demand charge of the month is divided by the days of each tariff."""
    first = tariff(fixed_per_day=1.0, demand_per_kw=3.0, feed_in_per_kwh=0.1)
    second = tariff(
        begins="2026-06-16",
        prices=[{"name": "flat", "per_kwh": 0.5}],
        fixed_per_day=2.0,
        demand_per_kw=6.0,
        feed_in_per_kwh=0.2,
    )
    over = between("2026-06-01", "2026-07-01")
    used = [use("a", 10, over, fed_in_kw=1)]
    plan = AccountingPlan(meters={}, sites={"hall": SitePlan(timezone=BERLIN, tariffs=(first, second))})
    accounts = account_costs(used, over, plan, whole_sites=True)
    found = total_of(used, accounts, over)
    assert found["energy_cost"] == pytest.approx(15 * 10 * (8 * 0.1 + 16 * 0.3) + 15 * 10 * 24 * 0.5)
    assert found["feed_in_revenue"] == pytest.approx(15 * 24 * (0.1 + 0.2))
    assert found["fixed_cost"] == pytest.approx(15 * 1 + 15 * 2)
    assert found["demand_cost"] == pytest.approx(10 * (3 / 2 + 6 / 2))
    assert [price.name for price in accounts.prices] == ["night", "day", "flat"]
    before = between("2026-06-01", "2026-06-16")
    early = account_costs([use("a", 10, before)], before, plan, whole_sites=True)
    assert [price.name for price in early.prices] == ["night", "day"]


def test_site_that_only_feeds_in_has_no_demand_charge() -> None:
    over = between("2026-06-01", "2026-06-02")
    used = [use("a", -10, over)]
    accounts = account(used, tariff(demand_per_kw=9.0), over)
    assert [(charge.kw, charge.cost) for charge in accounts.demand] == [(0, 0)]
    assert total_of(used, accounts, over)["demand_cost"] == 0
