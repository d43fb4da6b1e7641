"""Water use by meters."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Depends, Response

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
    rows_by_hour,
)
from aurum.api.sustainability_schemas import WaterAmount, WaterHour, WaterOut
from aurum.api.table_export import Columns
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_water
from aurum.sustainability.totals import WaterTotal, water_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("water")), QueryPlace])


@router.get("/api/water", response_model=WaterOut, responses=EXPORTED)
async def water(context: Context, query: AccountQueryParameters) -> WaterOut | Response:
    """Returns the water of machines, lines or sites, and its ratio to the energy of the same machines."""
    quantities: tuple[Quantity, ...] = ("water", "energy") if query.format == "json" else ("water",)
    used = await measure_use(
        context.ingestion, context.accounting_plan, query.selection, query.over, quantities, query.reservation
    )
    if query.format == "json":
        return await asyncio.to_thread(_water_out, query, used)
    groups = group_use((use for use in used if use.water is not None), query.group_by)
    del used  # so that the memory of each group is freed when the group is written

    def columns(members: Sequence[MachineUse]) -> Columns:
        water = sum_water(members, query.over)
        return {"litres": water.amount, "covered_seconds": water.covered}

    return await export(query, columns_by_group(groups, columns), ("litres", "covered_seconds"), "water")


def _water_out(query: AccountQuery, used: Sequence[MachineUse]) -> WaterOut:
    metered = [use for use in used if use.water is not None]
    return WaterOut(
        **common_fields(query, used, [use.machine_id for use in used if use.water is None]),
        total=_amount_out(water_total("total", metered, query.over)),
        groups=[
            _amount_out(water_total(name, members, query.over))
            for name, members in group_use(metered, query.group_by).items()
        ],
        hours=[
            WaterHour(start=start, litres=amount, coverage=coverage)
            for start, amount, coverage in rows_by_hour(sum_water(metered, query.over))
        ],
    )


def _amount_out(total: WaterTotal) -> WaterAmount:
    return WaterAmount.model_validate(total, from_attributes=True)
