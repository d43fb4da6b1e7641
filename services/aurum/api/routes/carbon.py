"""Emissions of electricity by GHG Protocol scope 2, and the best time for a deferrable load."""

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from aurum.api.account_answers import factor_out
from aurum.api.accounting.carbon import SiteAccounts, account_sites, find_best_start
from aurum.api.accounting.group_measurement import GroupMeasurement, MeasuredSums
from aurum.api.accounting.measurement import resolve_range
from aurum.api.context import Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import (
    EXPORTED,
    AccountQuery,
    AccountQueryParameters,
    columns_by_group,
    common_fields,
    export,
    export_groups,
    json_answer,
    measurement_of,
)
from aurum.api.serializers import finite_or_none, to_datetime
from aurum.api.sustainability_schemas import (
    CarbonAmount,
    CarbonHintOut,
    CarbonHour,
    CarbonOut,
    ContractOut,
)
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_energy
from aurum.sustainability.totals import CarbonTotal, HourlyEmissions, attribute_emissions, carbon_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("carbon")), QueryPlace])

_FORECAST = 48  # hours
_QUANTITIES: tuple[Quantity, ...] = ("energy",)
_COLUMNS = tuple(field.name for field in fields(HourlyEmissions))


@router.get("/api/carbon", response_model=CarbonOut, responses=EXPORTED)
async def carbon(context: Context, query: AccountQueryParameters) -> Response:
    """Returns the emissions of machines, lines or sites by both methods of GHG Protocol scope 2.

    Market-based emissions take account of contracts, which are matched hour by hour.
    """
    measurement = measurement_of(context, query, _QUANTITIES)
    measured = await measurement.measure(_is_metered)
    sites = await account_sites(measured.sums, query.over, context.accounting_plan, context.emission_factors)
    if query.format == "json":
        return await _answer(query, measurement, measured, sites)
    groups = await export_groups(measurement, query.group_by, _is_metered)
    columns = columns_by_group(groups, lambda members: asdict(attribute_emissions(members, sites.accounts, query.over)))
    return await export(query, columns, _COLUMNS, "carbon")


def _is_metered(use: MachineUse) -> bool:
    return use.energy is not None


async def _answer(
    query: AccountQuery, measurement: GroupMeasurement, measured: MeasuredSums, sites: SiteAccounts
) -> Response:
    groups: list[CarbonTotal] = []

    def add_group(name: str, members: Sequence[MachineUse]) -> None:
        emissions = attribute_emissions(members, sites.accounts, query.over)
        groups.append(carbon_total(name, members, emissions, query.over))

    if query.group_by == "machine" and measured.sums:
        # Measured once more, since the emissions of a machine depend on what its site used in the same hour
        await measurement.measure(_is_metered, lambda use: add_group(use.machine_id, [use]))
    else:
        for name, members in group_use(measured.sums, query.group_by).items():
            add_group(name, members)
    return await json_answer(lambda: _carbon_out(query, measured, sites, groups))


def _carbon_out(
    query: AccountQuery, measured: MeasuredSums, sites: SiteAccounts, groups: Sequence[CarbonTotal]
) -> CarbonOut:
    hourly = attribute_emissions(measured.sums, sites.accounts, query.over)
    total = carbon_total("total", measured.sums, hourly, query.over)
    matched = sites.matched_kwh(query.over)
    coverage = sum_energy(measured.sums, query.over).coverage_by_hour
    return CarbonOut(
        **common_fields(query, measured.notes),
        total=_amount_out(total),
        matched_share=math.fsum(matched) / total.energy_kwh if total.energy_kwh else 0.0,
        groups=[_amount_out(group) for group in groups],
        hours=[
            CarbonHour(
                start=to_datetime((query.over.first_hour + index) * HOUR_US),
                energy_kwh=float(hourly.energy_kwh[index]),
                location_kgco2e=finite_or_none(float(hourly.location_kgco2e[index])),
                market_kgco2e=finite_or_none(float(hourly.market_kgco2e[index])),
                matched_kwh=float(matched[index]),
                coverage=float(coverage[index]),
            )
            for index in range(query.over.hours)
        ],
        factors=[factor_out(summary) for summary in sites.factors],
        contracts=[ContractOut.model_validate(contract, from_attributes=True) for contract in sites.contracts],
        notes=list(sites.notes),
        missing_factor_share=sites.missing_factor_kwh / total.energy_kwh if total.energy_kwh else 0.0,
    )


@router.get("/api/carbon/hint")
async def carbon_hint(
    context: Context,
    kw: Annotated[float, Query(gt=0, le=1e6, description="Power of the deferrable load in kW.")],
    duration_hours: Annotated[int, Query(ge=1, le=_FORECAST, description="Duration of the load.")] = 1,
    within_hours: Annotated[
        int, Query(ge=1, le=_FORECAST, description="Hours within which the load must be done.")
    ] = 24,
    site: Annotated[str, Query(description="Site of the load, which determines the grid zone.")] = "",
) -> CarbonHintOut:
    """Returns the start of a deferrable load with the least emissions, by the known factors of the coming hours."""
    if duration_hours > within_hours:
        raise InvalidArgumentError.for_field("duration_hours", "must be at most within_hours")
    now = resolve_range(0, 0).end // HOUR_US
    hint = await find_best_start(
        context.accounting_plan, context.emission_factors, site, now, kw, duration_hours, within_hours
    )
    return CarbonHintOut(
        zone=hint.zone,
        kw=kw,
        duration_hours=duration_hours,
        best_start=to_datetime(hint.shift.start * HOUR_US) if hint.shift.is_better else None,
        now_kgco2e=hint.shift.now,
        best_kgco2e=hint.shift.best,
        note=hint.note,
    )


def _amount_out(total: CarbonTotal) -> CarbonAmount:
    return CarbonAmount.model_validate(total, from_attributes=True)
