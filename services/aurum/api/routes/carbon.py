"""Emissions of electricity by GHG Protocol scope 2, and the best time for a deferrable load."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting import MachineUse, Quantity, Range, account, range_of
from aurum.api.context import ApiContext, Context, require_feature
from aurum.api.convert import moment
from aurum.api.emission_factors import numbers
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import EXPORTED, Asked, AskedFor, by_group, export, groups_of, head
from aurum.api.routes.energy import energy_of
from aurum.api.sustainability_schemas import (
    CarbonAmount,
    CarbonHintOut,
    CarbonHour,
    CarbonOut,
    ContractOut,
    FactorOut,
)
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability import carbon as scope_2
from aurum.sustainability.factors import Factor
from aurum.sustainability.hourly import HOUR_US, Floats

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("carbon")), QueryPlace])

_FORECAST = 48  # hours
_METERED: tuple[Quantity, ...] = ("energy",)
_COLUMNS = ("energy_kwh", "location_kgco2e", "market_kgco2e")


@dataclass(slots=True)
class _Sites:
    """The carbon accounts of the sites, with the factors and contracts that were used."""

    carbon: dict[str, scope_2.Carbon] = field(default_factory=dict)
    factors: dict[tuple[str, str], Sequence[Factor]] = field(default_factory=dict)  # by zone and method
    contracts: list[ContractOut] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # an ordered set


@router.get("/api/carbon", response_model=CarbonOut, responses=EXPORTED)
async def carbon(context: Context, asked: AskedFor) -> CarbonOut | Response:
    """Emissions of the energy of machines, lines or sites: location-based, and market-based with contracts that are
    matched hour by hour."""
    used = await account(context.ingestion, context.plan, asked.scope, asked.over, _METERED, asked.held)
    metered = [use for use in used if use.energy is not None]
    sites = await _sites(context, metered, asked.over)
    if asked.format == "json":
        return await asyncio.to_thread(_answer, asked, used, sites)
    groups = groups_of(metered, asked.group_by)
    del used, metered  # so that each group is released when it is written
    columns = by_group(groups, lambda members: _columns(members, sites, asked.over))
    return await export(asked, columns, _COLUMNS, "carbon")


def _answer(asked: Asked, used: Sequence[MachineUse], sites: _Sites) -> CarbonOut:
    metered = [use for use in used if use.energy is not None]
    total = _columns(metered, sites, asked.over)
    matched = np.sum([each.matched for each in sites.carbon.values()] or [np.zeros(asked.over.hours)], axis=0)
    kwh = math.fsum(total["energy_kwh"])
    return CarbonOut(
        **head(asked, [use.machine_id for use in used if use.energy is None]),
        total=_amount("total", metered, sites, asked.over),
        matched_share=math.fsum(matched) / kwh if kwh else 0.0,
        groups=[
            _amount(name, members, sites, asked.over) for name, members in groups_of(metered, asked.group_by).items()
        ],
        hours=[
            CarbonHour(
                start=moment((asked.over.first_hour + index) * HOUR_US),
                matched_kwh=float(matched[index]),
                **{name: float(values[index]) for name, values in total.items()},
            )
            for index in range(asked.over.hours)
        ],
        factors=[_factor_out(zone, method, found) for (zone, method), found in sites.factors.items()],
        contracts=sites.contracts,
        notes=list(sites.notes),
    )


@router.get("/api/carbon/hint")
async def carbon_hint(
    context: Context,
    kw: Annotated[float, Query(gt=0, le=1e6, description="Power of the load that can wait.")],
    duration_hours: Annotated[int, Query(ge=1, le=_FORECAST)] = 1,
    within_hours: Annotated[int, Query(ge=1, le=_FORECAST, description="By when it must be done.")] = 24,
    site: str = "",
) -> CarbonHintOut:
    """When a load that can wait would emit least, by the factors that are known of the hours to come."""
    if duration_hours > within_hours:
        raise InvalidArgumentError.of("duration_hours", "must be at most within_hours")
    zone = context.plan.site_of(site).zone
    first = range_of(0, 0).end // HOUR_US
    factors, problem = await context.factors.of(zone, "location", first, within_hours)
    hint = scope_2.best_start(first, numbers(factors), kw, duration_hours)
    better = hint.best < hint.now
    note = f"{'' if better else 'no hour is better than now '}by {factors[0].source}"
    if any(factor.stale for factor in factors):
        note = f"{note}; for some hours an earlier factor stands in, which tells no difference"
    return CarbonHintOut(
        zone=zone,
        kw=kw,
        duration_hours=duration_hours,
        best_start=moment(hint.start * HOUR_US) if better else None,
        now_kgco2e=hint.now,
        best_kgco2e=hint.best,
        note=f"{note}; {problem}" if problem else note,
    )


async def _sites(context: ApiContext, metered: Sequence[MachineUse], over: Range) -> _Sites:
    sites = _Sites()
    for site, members in groups_of(metered, "site").items():
        await _add_site(sites, context, site, members, over)
    return sites


async def _add_site(sites: _Sites, context: ApiContext, site: str, members: Sequence[MachineUse], over: Range) -> None:
    buys = context.plan.site_of(site)
    zone = buys.zone
    grid, problem = await context.factors.of(zone, "location", over.first_hour, over.hours)
    sites.factors[zone, "location"] = grid
    if problem:
        sites.notes[problem] = None
    residual = grid
    if (zone, "residual") in context.factors.table.factors:
        residual, _ = await context.factors.of(zone, "residual", over.first_hour, over.hours)
        sites.factors[zone, "residual"] = residual
    else:
        sites.notes[f"no residual mix of zone {zone} is known, so the grid's factor stands in for it"] = None
    contracts = [part.contract() for part in buys.contracts]
    kwh = energy_of(members, over).amount
    found = scope_2.account(over.first_hour, kwh, numbers(grid), numbers(residual), contracts)
    sites.carbon[site] = found
    sites.contracts += [
        ContractOut(site=site, name=contract.name, kg_per_kwh=contract.factor, matched_kwh=matched)
        for contract, matched in zip(contracts, found.by_contract, strict=True)
    ]


def _columns(members: Sequence[MachineUse], sites: _Sites, over: Range) -> dict[str, Floats]:
    """Returns energy and emissions by hour. A kWh of any machine of a site has the same emissions within an hour."""
    columns = {name: np.zeros(over.hours) for name in _COLUMNS}
    for site, used in groups_of(members, "site").items():
        whole = sites.carbon[site]
        kwh = energy_of(used, over).amount
        share = np.where(whole.kwh > 0, kwh / np.where(whole.kwh > 0, whole.kwh, 1.0), 0.0)
        columns["energy_kwh"] += kwh
        columns["location_kgco2e"] += share * whole.location
        columns["market_kgco2e"] += share * whole.market
    return columns


def _amount(name: str, members: Sequence[MachineUse], sites: _Sites, over: Range) -> CarbonAmount:
    sums = {column: math.fsum(values) for column, values in _columns(members, sites, over).items()}
    return CarbonAmount(name=name, coverage=energy_of(members, over).coverage, **sums)


def _factor_out(zone: str, method: str, found: Sequence[Factor]) -> FactorOut:
    values = [factor.kg_per_kwh for factor in found]
    return FactorOut(
        zone=zone,
        method=method,
        source="; ".join(dict.fromkeys(factor.source for factor in found)),
        year=max(factor.year for factor in found),
        kg_per_kwh_least=min(values),
        kg_per_kwh_most=max(values),
        hours=len(found),
        stale_hours=sum(factor.stale for factor in found),
    )
