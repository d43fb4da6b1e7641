"""Water use by meters."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Response

from aurum.api.accounting.group_measurement import GroupMeasurement, MeasuredSums
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
    rows_by_hour,
)
from aurum.api.sustainability_schemas import WaterAmount, WaterHour, WaterOut
from aurum.api.table_export import Columns
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_water
from aurum.sustainability.totals import WaterTotal, water_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("water")), QueryPlace])

_QUANTITIES: tuple[Quantity, ...] = ("water", "energy")


@router.get("/api/water", response_model=WaterOut, responses=EXPORTED)
async def water(context: Context, query: AccountQueryParameters) -> Response:
    """Returns the water of machines, lines or sites, and its ratio to the energy of the same machines."""
    if query.format == "json":
        return await _answer(query, measurement_of(context, query, _QUANTITIES))
    groups = await export_groups(measurement_of(context, query, _QUANTITIES[:1]), query.group_by, _is_metered)

    def columns(members: Sequence[MachineUse]) -> Columns:
        water = sum_water(members, query.over)
        return {"litres": water.amount, "covered_seconds": water.covered}

    return await export(query, columns_by_group(groups, columns), ("litres", "covered_seconds"), "water")


def _is_metered(use: MachineUse) -> bool:
    return use.water is not None


async def _answer(query: AccountQuery, measurement: GroupMeasurement) -> Response:
    by_machine: list[WaterTotal] = []

    def add_machine(use: MachineUse) -> None:
        by_machine.append(water_total(use.machine_id, [use], query.over))

    measured = await measurement.measure(_is_metered, add_machine if query.group_by == "machine" else None)
    return await json_answer(lambda: _water_out(query, measured, by_machine))


def _water_out(query: AccountQuery, measured: MeasuredSums, by_machine: Sequence[WaterTotal]) -> WaterOut:
    groups = by_machine or [
        water_total(name, members, query.over) for name, members in group_use(measured.sums, query.group_by).items()
    ]
    return WaterOut(
        **common_fields(query, measured.notes),
        total=_amount_out(water_total("total", measured.sums, query.over)),
        groups=[_amount_out(group) for group in groups],
        hours=[
            WaterHour(start=start, litres=amount, coverage=coverage)
            for start, amount, coverage in rows_by_hour(sum_water(measured.sums, query.over))
        ],
    )


def _amount_out(total: WaterTotal) -> WaterAmount:
    return WaterAmount.model_validate(total, from_attributes=True)
