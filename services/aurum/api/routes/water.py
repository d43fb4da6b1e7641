"""Water use by meters."""

from fastapi import APIRouter, Depends, Response

from aurum.api.accounting.measurement import measure_use
from aurum.api.context import Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import EXPORTED, AccountQueryParameters, common_fields, export, rows_by_hour
from aurum.api.sustainability_schemas import WaterAmount, WaterHour, WaterOut
from aurum.sustainability.machine_use import group_use, sum_water
from aurum.sustainability.totals import WaterTotal, water_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("water")), QueryPlace])


@router.get("/api/water", response_model=WaterOut, responses=EXPORTED)
async def water(context: Context, query: AccountQueryParameters) -> WaterOut | Response:
    """Returns the water of machines, lines or sites, and its ratio to the energy of the same machines."""
    used = await measure_use(context.ingestion, context.accounting_plan, query.selection, query.over)
    metered = [use for use in used if use.water is not None]
    groups = group_use(metered, query.group_by)
    if query.format != "json":
        sums = {name: sum_water(members, query.over) for name, members in groups.items()}
        columns = {name: {"litres": sum_.amount, "covered_seconds": sum_.covered} for name, sum_ in sums.items()}
        return export(query, columns, "water")
    return WaterOut(
        **common_fields(query, [use.machine_id for use in used if use.water is None]),
        total=_amount_out(water_total("total", metered, query.over)),
        groups=[_amount_out(water_total(name, members, query.over)) for name, members in groups.items()],
        hours=[
            WaterHour(start=start, litres=amount, coverage=coverage)
            for start, amount, coverage in rows_by_hour(sum_water(metered, query.over))
        ],
    )


def _amount_out(total: WaterTotal) -> WaterAmount:
    return WaterAmount.model_validate(total, from_attributes=True)
