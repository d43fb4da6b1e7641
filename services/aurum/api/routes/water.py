"""Water use by meters."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Response

from aurum.api.accounting import MachineUse, Quantity, Range, account
from aurum.api.context import Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import EXPORTED, Asked, AskedFor, Columns, by_group, by_hour, export, groups_of, head
from aurum.api.routes.energy import energy_of
from aurum.api.sustainability_schemas import WaterAmount, WaterHour, WaterOut
from aurum.sustainability.hourly import Hourly, add
from aurum.sustainability.water import water_usage_effectiveness

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("water")), QueryPlace])


@router.get("/api/water", response_model=WaterOut, responses=EXPORTED)
async def water(context: Context, asked: AskedFor) -> WaterOut | Response:
    """Water of machines, lines or sites, and how much of it a kWh of the same machines takes."""
    json = asked.format == "json"
    quantities: tuple[Quantity, ...] = ("water", "energy") if json else ("water",)
    used = await account(context.ingestion, context.plan, asked.scope, asked.over, quantities, asked.held)
    if json:
        return await asyncio.to_thread(_answer, asked, used)
    groups = groups_of([use for use in used if use.water is not None], asked.group_by)
    del used  # so that each group is released when it is written

    def columns(members: Sequence[MachineUse]) -> Columns:
        sum_ = _water_of(members, asked.over)
        return {"litres": sum_.amount, "covered_seconds": sum_.covered}

    return await export(asked, by_group(groups, columns), ("litres", "covered_seconds"), "water")


def _answer(asked: Asked, used: Sequence[MachineUse]) -> WaterOut:
    metered = [use for use in used if use.water is not None]
    return WaterOut(
        **head(asked, [use.machine_id for use in used if use.water is None]),
        total=_amount("total", metered, asked.over),
        groups=[_amount(name, members, asked.over) for name, members in groups_of(metered, asked.group_by).items()],
        hours=[
            WaterHour(start=start, litres=amount, coverage=coverage)
            for start, amount, coverage in by_hour(_water_of(metered, asked.over))
        ],
    )


def _water_of(used: Sequence[MachineUse], over: Range) -> Hourly:
    return add((use.water for use in used if use.water is not None), over.start, over.end)


def _amount(name: str, used: Sequence[MachineUse], over: Range) -> WaterAmount:
    sum_ = _water_of(used, over)
    kwh = energy_of(used, over).total if any(use.energy is not None for use in used) else None
    return WaterAmount(
        name=name,
        litres=sum_.total,
        estimated_litres=sum_.estimate,
        coverage=sum_.coverage,
        energy_kwh=kwh,
        litres_per_kwh=None if kwh is None else water_usage_effectiveness(sum_.total, kwh),
    )
