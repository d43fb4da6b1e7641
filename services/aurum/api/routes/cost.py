"""Costs of electricity by the tariffs of sites."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, fields

from fastapi import APIRouter, Depends, Response

from aurum.api.account_answers import demand_out
from aurum.api.accounting.group_measurement import UseNotes
from aurum.api.accounting.measurement import measure_use
from aurum.api.context import Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import (
    EXPORTED,
    AccountQuery,
    AccountQueryParameters,
    columns_by_group,
    common_fields,
    export,
)
from aurum.api.serializers import to_datetime
from aurum.api.sustainability_schemas import CostAmount, CostHour, CostOut, PricedEnergyOut
from aurum.api.table_export import Columns
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.time_units import HOUR_US
from aurum.sustainability.cost import (
    CostAccounts,
    CostTotal,
    HourlyCost,
    account_costs,
    attribute_costs,
    cost_total,
    is_metered,
)
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("energy")), QueryPlace])

_QUANTITIES: tuple[Quantity, ...] = ("energy",)
_COLUMNS = (*(field.name for field in fields(HourlyCost)), "cost")
_MAX_NAMED = 100  # sites in `without_tariff`


@router.get("/api/cost", response_model=CostOut, responses=EXPORTED)
async def cost(context: Context, query: AccountQueryParameters) -> CostOut | Response:
    """Returns the costs of machines, lines or sites by the tariffs of the accounting plan.

    Fixed and demand charges are contained if whole sites are requested. They are divided among the groups.
    """
    plan, over = context.accounting_plan, query.over
    used = await measure_use(context.ingestion, plan, query.selection, over, _QUANTITIES, query.reservation)
    whole_sites = not (query.selection.machine_id or query.selection.machine_type)
    accounts = await asyncio.to_thread(
        account_costs, [use for use in used if is_metered(use)], over, plan, whole_sites=whole_sites
    )
    if query.format == "json":
        return await asyncio.to_thread(_cost_out, query, used, accounts)
    return await _export(query, used, accounts)


async def _export(query: AccountQuery, used: Sequence[MachineUse], accounts: CostAccounts) -> Response:
    currencies = accounts.currencies
    if len(currencies) > 1:
        raise InvalidArgumentError.for_field(
            "site",
            f"must be given, since the sites have tariffs in {', '.join(currencies)}, and a file has one currency",
        )
    if not currencies:
        raise InvalidArgumentError.for_field(
            "site",
            "no selected machine is at a site with a tariff; state one in the accounting plan "
            "(AURUM_SUSTAINABILITY_PLAN), or request json",
        )
    members = [each for part in accounts.by_currency(used).values() for each in part if is_metered(each)]

    def columns(group: Sequence[MachineUse]) -> Columns:
        hourly = attribute_costs(group, accounts.sites, query.over)
        return {**asdict(hourly), "cost": hourly.cost}

    groups = columns_by_group(group_use(members, query.group_by), columns)
    # Charges are divided into parts of a cent, which must add up
    return await export(query, groups, _COLUMNS, f"cost-{currencies[0]}", decimals=None)


def _cost_out(query: AccountQuery, used: Sequence[MachineUse], accounts: CostAccounts) -> CostOut:
    by_currency = accounts.by_currency(use for use in used if is_metered(use))
    totals, groups, hours = [], [], []
    for currency, members in by_currency.items():
        hourly = attribute_costs(members, accounts.sites, query.over)
        totals.append(_amount_out(cost_total("total", currency, members, hourly, query.over)))
        hours += _hours_out(currency, hourly, query.over.first_hour)
        for name, group in group_use(members, query.group_by).items():
            part = attribute_costs(group, accounts.sites, query.over)
            groups.append(_amount_out(cost_total(name, currency, group, part, query.over)))
    return CostOut(
        **common_fields(query, UseNotes.of(used, is_metered)),
        totals=totals,
        groups=groups,
        hours=hours,
        prices=[PricedEnergyOut.model_validate(price, from_attributes=True) for price in accounts.prices],
        demand=[demand_out(charge) for charge in accounts.demand],
        without_tariff=accounts.without_tariff[:_MAX_NAMED],
        unpriced_kwh=accounts.unpriced_kwh,
        notes=list(accounts.notes),
    )


def _hours_out(currency: str, hourly: HourlyCost, first_hour: int) -> list[CostHour]:
    columns = {**asdict(hourly), "cost": hourly.cost}
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        CostHour(
            start=to_datetime((first_hour + index) * HOUR_US),
            currency=currency,
            **dict(zip(columns, row, strict=True)),
        )
        for index, row in enumerate(rows)
    ]


def _amount_out(total: CostTotal) -> CostAmount:
    return CostAmount.model_validate(total, from_attributes=True)
