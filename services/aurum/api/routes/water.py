"""Water use by meters."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Response

from aurum.api.accounting import MachineUse, Range, account
from aurum.api.context import Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import EXPORTED, AskedFor, by_hour, export, groups_of, head
from aurum.api.routes.energy import energy_of
from aurum.api.sustainability_schemas import WaterAmount, WaterHour, WaterOut
from aurum.sustainability.hourly import HourlyAmounts, sum_hours
from aurum.sustainability.water import water_usage_effectiveness

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("water")), QueryPlace])


@router.get("/api/water", response_model=WaterOut, responses=EXPORTED)
async def water(context: Context, asked: AskedFor) -> WaterOut | Response:
    """Water of machines, lines or sites, and how much of it a kWh of the same machines takes."""
    used = await account(context.ingestion, context.plan, asked.scope, asked.over)
    metered = [use for use in used if use.water is not None]
    groups = groups_of(metered, asked.group_by)
    if asked.format != "json":
        sums = {name: _water_of(members, asked.over) for name, members in groups.items()}
        columns = {name: {"litres": sum_.amount, "covered_seconds": sum_.covered} for name, sum_ in sums.items()}
        return export(asked, columns, "water")
    return WaterOut(
        **head(asked, [use.machine_id for use in used if use.water is None]),
        total=_amount("total", metered, asked.over),
        groups=[_amount(name, members, asked.over) for name, members in groups.items()],
        hours=[
            WaterHour(start=start, litres=amount, coverage=coverage)
            for start, amount, coverage in by_hour(_water_of(metered, asked.over))
        ],
    )


def _water_of(used: Sequence[MachineUse], over: Range) -> HourlyAmounts:
    return sum_hours((use.water for use in used if use.water is not None), over.start, over.end)


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
