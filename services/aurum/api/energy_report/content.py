"""Computes the monthly energy report from the accounts of energy, cost, carbon and water."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from aurum.api.account_answers import demand_out, factor_out
from aurum.api.accounting.carbon import SiteAccounts
from aurum.api.energy_report.schemas import (
    EnergyReportOut,
    Language,
    MoneyOut,
    ReportDay,
    ReportLine,
    ReportNote,
)
from aurum.api.energy_report.texts import ReportTexts, load_texts
from aurum.api.sustainability_schemas import ContractOut, CostAmount, FactorOut, PricedEnergyOut
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.cost import CostAccounts, HourlyCost, attribute_costs, cost_total, is_metered
from aurum.sustainability.hourly import Floats, HourlyAmounts, TimeRange
from aurum.sustainability.machine_use import MachineUse, sum_energy, sum_fed_in, sum_water
from aurum.sustainability.totals import attribute_emissions

_MONTH = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_FIRST_YEAR, _LAST_YEAR = 1971, 2200
_MOST_LINES = 100  # sites and types
_MOST_MACHINES = 20
_MOST_NAMED = 100  # sites without a tariff
_GOOD_COVERAGE = 0.95  # below it, a note tells the coverage
_WHOLE_MONTH = 0.999  # share of a month that a month in another time zone does not reach


@dataclass(frozen=True, slots=True)
class ReportedMonth:
    """A month, as far as it is past.

    Attributes:
        name: The month, as YYYY-MM.
        timezone: The time zone in which it begins and ends.
        over: Its time, up to the present.
        complete: Whether it is over.
    """

    name: str
    timezone: str
    over: TimeRange
    complete: bool


@dataclass(frozen=True, slots=True)
class ReportAccounts:
    """What a report is computed from.

    Attributes:
        used: The use of the machines.
        costs: The costs of their sites.
        carbon: The carbon accounts of their sites; None if carbon accounting is disabled.
    """

    used: Sequence[MachineUse]
    costs: CostAccounts
    carbon: SiteAccounts | None


def resolve_month(month: str, timezone: str, now_us: int) -> ReportedMonth:
    """Returns the time of a month.

    Args:
        month: The month, as YYYY-MM.
        timezone: The time zone in which it begins and ends.
        now_us: The present time in µs since 1970.

    Raises:
        InvalidArgumentError: It is not a month, or has not begun.
    """
    found = _MONTH.fullmatch(month)
    year, number = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (1 <= number <= 12 and _FIRST_YEAR <= year <= _LAST_YEAR):
        raise InvalidArgumentError.for_field("month", f"{month[:20]!r} is not a month such as 2026-10")
    zone = ZoneInfo(timezone)
    start, end = (
        round(datetime(each.year, each.month, 1, tzinfo=zone).timestamp()) * 1_000_000
        for each in (date(year, number, 1), date(year + number // 12, number % 12 + 1, 1))
    )
    if start >= now_us:
        raise InvalidArgumentError.for_field("month", f"{month} has not begun yet in {timezone}; choose an earlier one")
    return ReportedMonth(month, timezone, TimeRange(start, min(end, now_us)), end <= now_us)


def energy_report(
    month: ReportedMonth, site: str, language: Language, accounts: ReportAccounts, common: dict[str, Any]
) -> EnergyReportOut:
    """Returns the report.

    Args:
        month: The month.
        site: The site; empty for all.
        language: The language of its texts.
        accounts: The accounts of its machines.
        common: The fields that it has in common with other accounts: corrections and machines without a meter.
    """
    texts = load_texts(language)
    sums = _Sums(accounts, month)
    used = accounts.used
    groups = {
        "sites": sums.lines(_group(used, lambda use: use.site), _MOST_LINES),
        "types": sums.lines(_group(used, lambda use: use.machine_type), _MOST_LINES),
        "machines": sums.lines(_group(used, lambda use: use.machine_id), _MOST_MACHINES),
    }
    carbon = accounts.carbon
    costs = [
        CostAmount.model_validate(cost_total("total", currency, members, hourly, month.over), from_attributes=True)
        for currency, members, hourly in sums.costs(used)
    ]
    report = EnergyReportOut(
        month=month.name,
        complete=month.complete,
        timezone=month.timezone,
        site=site,
        language=language,
        total=sums.line("total", used),
        costs=costs,
        **{name: lines for name, (lines, _) in groups.items()},
        **{f"{name}_count": count for name, (_, count) in groups.items()},
        days=sums.days(used),
        prices=[PricedEnergyOut.model_validate(price, from_attributes=True) for price in accounts.costs.prices],
        demand=[demand_out(charge) for charge in accounts.costs.demand],
        without_tariff=accounts.costs.without_tariff[:_MOST_NAMED],
        unpriced_kwh=accounts.costs.unpriced_kwh,
        factors=[factor_out(summary) for summary in carbon.factors] if carbon else [],
        contracts=[ContractOut.model_validate(each, from_attributes=True) for each in carbon.contracts]
        if carbon
        else [],
        **common,
        method=texts.method,
        notes=[],
    )
    return report.model_copy(update={"notes": list(_notes(month, report, carbon, texts))})


def _group(used: Iterable[MachineUse], key: Callable[[MachineUse], str]) -> dict[str, list[MachineUse]]:
    groups: dict[str, list[MachineUse]] = {}
    for use in used:
        groups.setdefault(key(use), []).append(use)
    return groups


class _Sums:
    """Sums of the accounts over groups of machines and over days."""

    def __init__(self, accounts: ReportAccounts, month: ReportedMonth) -> None:
        self._accounts = accounts
        self._over = month.over
        self._zone = ZoneInfo(month.timezone)

    def lines(self, groups: dict[str, list[MachineUse]], most: int) -> tuple[list[ReportLine], int]:
        """Returns the lines of the groups with most energy, and the number of all groups."""
        lines = [self.line(name, members) for name, members in groups.items()]
        return sorted(lines, key=lambda line: (-line.energy_kwh, line.name))[:most], len(lines)

    def line(self, name: str, used: Sequence[MachineUse]) -> ReportLine:
        """Returns the line of a group."""
        energy = sum_energy(used, self._over)
        return ReportLine(
            name=name,
            estimated_kwh=energy.estimate,
            coverage=energy.coverage,
            costs=[
                MoneyOut(currency=currency, cost=math.fsum(hourly.cost)) for currency, _, hourly in self.costs(used)
            ],
            **{name: _sum_known(values) for name, values in self._columns(used).items()},
        )

    def days(self, used: Sequence[MachineUse]) -> list[ReportDay]:
        """Returns the sums of each local day. An hour belongs to the day in which it begins within the range."""
        starts = (self._over.first_hour + np.arange(self._over.hours)) * HOUR_US
        starts[0] = self._over.start
        by_day: dict[date, list[int]] = {}
        for index, start in enumerate(starts.tolist()):
            by_day.setdefault(datetime.fromtimestamp(start / 1e6, self._zone).date(), []).append(index)
        energy = sum_energy(used, self._over)
        columns = self._columns(used)
        costs = [(currency, hourly.cost) for currency, _, hourly in self.costs(used)]
        return [
            ReportDay(
                day=day,
                coverage=_coverage_within(energy, hours),
                costs=[MoneyOut(currency=currency, cost=math.fsum(cost[hours])) for currency, cost in costs],
                **{name: _sum_known(None if values is None else values[hours]) for name, values in columns.items()},
            )
            for day, hours in by_day.items()
        ]

    def costs(self, used: Sequence[MachineUse]) -> list[tuple[str, list[MachineUse], HourlyCost]]:
        """Returns currency, machines and costs of the machines in each currency."""
        metered = [use for use in used if is_metered(use)]
        return [
            (currency, members, attribute_costs(members, self._accounts.costs.sites, self._over))
            for currency, members in self._accounts.costs.by_currency(metered).items()
        ]

    def _columns(self, used: Sequence[MachineUse]) -> dict[str, Floats | None]:
        """Returns the amounts of each hour by the field of the report; None for what is not accounted."""
        fed_in = sum_fed_in(used, self._over)
        water = sum_water(used, self._over) if any(use.water is not None for use in used) else None
        emissions = None
        if self._accounts.carbon is not None:
            drawing = [use for use in used if use.energy is not None]
            emissions = attribute_emissions(drawing, self._accounts.carbon.accounts, self._over)
        return {
            "energy_kwh": sum_energy(used, self._over).amount,
            "fed_in_kwh": fed_in.amount if fed_in else None,
            "location_kgco2e": emissions.location_kgco2e if emissions else None,
            "market_kgco2e": emissions.market_kgco2e if emissions else None,
            "water_litres": water.amount if water else None,
        }


def _sum_known(values: Floats | None) -> Any:
    """Returns the sum of the known amounts, or None. Its type is that of the field of the report."""
    return None if values is None else math.fsum(values[~np.isnan(values)])


def _coverage_within(amounts: HourlyAmounts, hours: list[int]) -> float:
    in_range = amounts.in_range[hours].sum()
    return float(amounts.covered[hours].sum() / in_range) if in_range else 0.0


def _notes(
    month: ReportedMonth,
    report: EnergyReportOut,
    carbon: SiteAccounts | None,
    texts: ReportTexts,
) -> Iterator[ReportNote]:
    """Yields remarks about what limits the numbers."""
    if not month.complete:
        yield texts.note("month_not_over")
    if report.total.coverage < _GOOD_COVERAGE:
        yield texts.note("low_coverage", percent=round(report.total.coverage * 100, 1))
    if report.not_metered_count:
        yield texts.note("not_metered", count=report.not_metered_count)
    if report.demand:
        yield texts.note("demand_by_hour")
    if month.complete and any(charge.month_share < _WHOLE_MONTH for charge in report.demand):
        yield texts.note("demand_of_part")
    if report.without_tariff and report.costs:
        yield texts.note("without_tariff", sites=", ".join(report.without_tariff), kwh=round(report.unpriced_kwh, 1))
    for name, lines, count in (
        ("sites", report.sites, report.sites_count),
        ("types", report.types, report.types_count),
        ("machines", report.machines, report.machines_count),
    ):
        if len(lines) < count:
            yield texts.note(f"{name}_cut", shown=len(lines), count=count)
    yield from _factor_notes(report.factors, carbon, texts)


def _factor_notes(
    factors: Sequence[FactorOut], carbon: SiteAccounts | None, texts: ReportTexts
) -> Iterator[ReportNote]:
    residual = {factor.zone for factor in factors if factor.method == "residual"}
    for factor in factors:
        if factor.method == "location" and factor.zone not in residual:
            yield texts.note("no_residual_mix", zone=factor.zone)
        if factor.missing_hours:
            yield texts.note("missing_factors", zone=factor.zone, missing=factor.missing_hours, hours=factor.hours)
        if factor.stale_hours:
            yield texts.note("stale_factors", zone=factor.zone, stale=factor.stale_hours, hours=factor.hours)
    unaccounted = 0.0
    if carbon is not None:
        unaccounted = math.fsum(
            math.fsum(account.kwh[np.isnan(account.location)]) for account in carbon.accounts.values()
        )
    if unaccounted:
        yield texts.note("unaccounted", kwh=round(unaccounted, 1))
