"""Energy by electric meters, and savings against a baseline."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting.measurement import measure_use, resolve_range
from aurum.api.context import ApiContext, Context, require_feature
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
from aurum.api.serializers import finite_or_none, parse_query_time, to_datetime
from aurum.api.sustainability_schemas import BaselineOut, EnergyAmount, EnergyHour, EnergyOut
from aurum.api.table_export import Columns
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.baseline import BaselineError
from aurum.sustainability.baseline_comparison import (
    BaselineComparison,
    Interval,
    Intervals,
    MissingVariableError,
    compare_with_baseline,
    energy_intervals,
)
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_energy, sum_fed_in
from aurum.sustainability.totals import EnergyTotal, energy_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("energy")), QueryPlace])

_BASELINE_QUANTITIES: tuple[Quantity, ...] = ("energy", "production", "temperature")


@router.get("/api/energy", response_model=EnergyOut, responses=EXPORTED)
async def energy(
    context: Context,
    query: AccountQueryParameters,
    baseline_start: Annotated[
        str | None, Query(description="Start of a reference period to compare with; requires baseline_end.")
    ] = None,
    baseline_end: Annotated[str | None, Query(description="End of the reference period, exclusive.")] = None,
    baseline_interval: Annotated[Interval, Query(description="Interval of the baseline's regression.")] = "hour",
) -> EnergyOut | Response:
    """Returns the energy of machines, lines or sites with its coverage.

    If a reference period is given, the savings against the energy baseline of that period are returned as well.
    """
    if query.format != "json":
        return await _export(context, query)
    period, before = None, None
    if baseline_start or baseline_end:
        if not (baseline_start and baseline_end):
            raise InvalidArgumentError.for_field("baseline_end", "and baseline_start must be given together")
        period = resolve_range(
            parse_query_time("baseline_start", baseline_start), parse_query_time("baseline_end", baseline_end)
        )
        # Reduced to intervals before the other range is measured, so that only one of the two is in memory
        before = await asyncio.to_thread(
            energy_intervals, await _measure(context, query, period, _BASELINE_QUANTITIES), period, baseline_interval
        )
    quantities: Sequence[Quantity] = ("energy", "production") if before is None else _BASELINE_QUANTITIES
    used = await _measure(context, query, query.over, quantities)
    baseline = None
    if period is not None and before is not None:
        baseline = await _compare(query, before, used, period, baseline_interval)
    return await asyncio.to_thread(_energy_out, query, used, baseline)


async def _measure(
    context: ApiContext, query: AccountQuery, over: TimeRange, quantities: Sequence[Quantity]
) -> list[MachineUse]:
    return await measure_use(
        context.ingestion, context.accounting_plan, query.selection, over, quantities, query.reservation
    )


async def _export(context: ApiContext, query: AccountQuery) -> Response:
    used = await _measure(context, query, query.over, ("energy",))
    groups = group_use((use for use in used if use.energy is not None), query.group_by)
    del used  # so that the memory of each group is freed when the group is written

    def columns(members: Sequence[MachineUse]) -> Columns:
        energy, fed_in = sum_energy(members, query.over), sum_fed_in(members, query.over)
        unmetered = np.full(query.over.hours, np.nan)
        return {
            "energy_kwh": energy.amount,
            "covered_seconds": energy.covered,
            "fed_in_kwh": unmetered if fed_in is None else fed_in.amount,
        }

    names = ("energy_kwh", "covered_seconds", "fed_in_kwh")
    return await export(query, columns_by_group(groups, columns), names, "energy")


async def _compare(
    query: AccountQuery, before: Intervals, used: Sequence[MachineUse], period: TimeRange, interval: Interval
) -> BaselineOut:
    try:
        comparison = await asyncio.to_thread(compare_with_baseline, before, used, query.over, interval)
    except MissingVariableError as error:
        raise InvalidArgumentError.for_field("start", str(error)) from error
    except BaselineError as error:
        raise InvalidArgumentError.for_field("baseline_start", str(error)) from error
    return _baseline_out(comparison, period, interval)


def _energy_out(query: AccountQuery, used: Sequence[MachineUse], baseline: BaselineOut | None) -> EnergyOut:
    metered = [use for use in used if use.energy is not None]
    return EnergyOut(
        **common_fields(query, used, [use.machine_id for use in used if use.energy is None]),
        total=_amount_out(energy_total("total", metered, query.over)),
        groups=[
            _amount_out(energy_total(name, members, query.over))
            for name, members in group_use(metered, query.group_by).items()
        ],
        hours=[
            EnergyHour(start=start, energy_kwh=amount, coverage=coverage, fed_in_kwh=fed_in)
            for (start, amount, coverage), fed_in in zip(
                rows_by_hour(sum_energy(metered, query.over)), _fed_in_by_hour(metered, query.over), strict=True
            )
        ],
        baseline=baseline,
    )


def _fed_in_by_hour(metered: Sequence[MachineUse], over: TimeRange) -> Sequence[float | None]:
    fed_in = sum_fed_in(metered, over)
    return [None] * over.hours if fed_in is None else fed_in.amount.tolist()


def _amount_out(total: EnergyTotal) -> EnergyAmount:
    return EnergyAmount.model_validate(total, from_attributes=True)


def _baseline_out(comparison: BaselineComparison, period: TimeRange, interval: Interval) -> BaselineOut:
    baseline, savings = comparison.baseline, comparison.savings
    return BaselineOut(
        start=to_datetime(period.start),
        end=to_datetime(period.end),
        interval=interval,
        intervals=baseline.intervals,
        intercept_kwh=baseline.intercept,
        coefficients=dict(zip(baseline.variables, baseline.coefficients, strict=True)),
        t_statistics=dict(zip(baseline.variables, baseline.t, strict=True)),
        r_squared=baseline.r_squared,
        cv_rmse=baseline.cv_rmse,
        expected_kwh=savings.expected,
        actual_kwh=savings.actual,
        savings_kwh=savings.savings,
        savings_share=savings.share,
        intervals_outside=savings.outside,
        cusum_kwh=[finite_or_none(value) for value in savings.cusum.tolist()],
    )
