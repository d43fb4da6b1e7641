"""Energy by electric meters, and savings against a baseline."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting.measurement import measure_use, resolve_range
from aurum.api.context import ApiContext, Context, require_feature
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import (
    EXPORTED,
    AccountQuery,
    AccountQueryParameters,
    common_fields,
    export,
    rows_by_hour,
)
from aurum.api.serializers import finite_or_none, parse_query_time, to_datetime
from aurum.api.sustainability_schemas import BaselineOut, EnergyAmount, EnergyHour, EnergyOut
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.baseline import BaselineError
from aurum.sustainability.baseline_comparison import (
    BaselineComparison,
    Interval,
    MissingVariableError,
    compare_with_baseline,
)
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse, group_use, sum_energy
from aurum.sustainability.totals import EnergyTotal, energy_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("energy")), QueryPlace])


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
    used = await measure_use(context.ingestion, context.accounting_plan, query.selection, query.over)
    metered = [use for use in used if use.energy is not None]
    groups = group_use(metered, query.group_by)
    if query.format != "json":
        sums = {name: sum_energy(members, query.over) for name, members in groups.items()}
        columns = {name: {"energy_kwh": sum_.amount, "covered_seconds": sum_.covered} for name, sum_ in sums.items()}
        return export(query, columns, "energy")
    baseline = None
    if baseline_start or baseline_end:
        if not (baseline_start and baseline_end):
            raise InvalidArgumentError.for_field("baseline_end", "and baseline_start must be given together")
        period = resolve_range(
            parse_query_time("baseline_start", baseline_start), parse_query_time("baseline_end", baseline_end)
        )
        baseline = await _compare(context, query, used, period, baseline_interval)
    return EnergyOut(
        **common_fields(query, [use.machine_id for use in used if use.energy is None]),
        total=_amount_out(energy_total("total", metered, query.over)),
        groups=[_amount_out(energy_total(name, members, query.over)) for name, members in groups.items()],
        hours=[
            EnergyHour(start=start, energy_kwh=amount, coverage=coverage)
            for start, amount, coverage in rows_by_hour(sum_energy(metered, query.over))
        ],
        baseline=baseline,
    )


async def _compare(
    context: ApiContext, query: AccountQuery, used: Sequence[MachineUse], period: TimeRange, interval: Interval
) -> BaselineOut:
    before = await measure_use(context.ingestion, context.accounting_plan, query.selection, period)
    try:
        comparison = await asyncio.to_thread(compare_with_baseline, before, used, period, query.over, interval)
    except MissingVariableError as error:
        raise InvalidArgumentError.for_field("start", str(error)) from error
    except BaselineError as error:
        raise InvalidArgumentError.for_field("baseline_start", str(error)) from error
    return _baseline_out(comparison, period, interval)


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
