"""Energy by electric meters, and savings against a baseline."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting.group_measurement import MeasuredSums
from aurum.api.accounting.measurement import resolve_range
from aurum.api.context import ApiContext, Context, require_feature
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
from aurum.api.serializers import finite_or_none, parse_query_time, to_datetime
from aurum.api.sustainability_schemas import BaselineOut, EnergyAmount, EnergyHour, EnergyOut
from aurum.api.table_export import Columns
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.baseline import BaselineError
from aurum.sustainability.baseline_comparison import (
    BaselineComparison,
    ComparedMachines,
    Interval,
    Intervals,
    MissingVariableError,
    compare_with_baseline,
    energy_intervals,
    machines_of_both,
)
from aurum.sustainability.hourly import TimeRange
from aurum.sustainability.machine_use import MachineUse, Quantity, group_use, sum_energy, sum_fed_in
from aurum.sustainability.totals import EnergyTotal, energy_total

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("energy")), QueryPlace])

_MAX_NAMED = 100  # machines that a baseline leaves out
_ENERGY: tuple[Quantity, ...] = ("energy",)
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
) -> Response:
    """Returns the energy of machines, lines or sites with its coverage.

    If a reference period is given, the savings against the energy baseline of that period are returned as well.
    """
    if query.format != "json":
        return await _export(context, query)
    if not (baseline_start or baseline_end):
        return await _answer(context, query, None)
    if not (baseline_start and baseline_end):
        raise InvalidArgumentError.for_field("baseline_end", "and baseline_start must be given together")
    period = resolve_range(
        parse_query_time("baseline_start", baseline_start), parse_query_time("baseline_end", baseline_end)
    )
    baseline = await _compare(context, query, period, baseline_interval)
    return await _answer(context, query, baseline)


def _is_metered(use: MachineUse) -> bool:
    return use.energy is not None


async def _export(context: ApiContext, query: AccountQuery) -> Response:
    groups = await export_groups(measurement_of(context, query, _ENERGY), query.group_by, _is_metered)

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


async def _compare(context: ApiContext, query: AccountQuery, period: TimeRange, interval: Interval) -> BaselineOut:
    """Compares the range with the baseline of a period. Only one of the two is in memory at a time."""
    coverage = [await _coverage(context, query, over) for over in (period, query.over)]
    compared = machines_of_both(*coverage)
    if not compared.machines:
        raise InvalidArgumentError.for_field(
            "baseline_start",
            f"to baseline_end cannot be compared: no machine has readings in both periods with like coverage, "
            f"of {len(compared.left_out)} with a power meter",
        )

    async def intervals(over: TimeRange) -> Intervals:
        measurement = replace(measurement_of(context, query, _BASELINE_QUANTITIES), over=over)
        used = [use for use in await measurement.measure_each() if use.machine_id in compared.machines]
        return await asyncio.to_thread(energy_intervals, used, over, interval)

    try:
        before = await intervals(period)
        comparison = compare_with_baseline(before, await intervals(query.over))
    except MissingVariableError as error:
        raise InvalidArgumentError.for_field("start", str(error)) from error
    except BaselineError as error:
        raise InvalidArgumentError.for_field("baseline_start", str(error)) from error
    return _baseline_out(comparison, compared, period, interval)


async def _coverage(context: ApiContext, query: AccountQuery, over: TimeRange) -> dict[str, float]:
    """Returns the share of a range for which the energy of each machine is known."""
    coverage: dict[str, float] = {}

    def add_machine(use: MachineUse) -> None:
        coverage[use.machine_id] = use.energy.coverage if use.energy is not None else 0.0

    await replace(measurement_of(context, query, _ENERGY), over=over).measure(_is_metered, add_machine)
    return coverage


async def _answer(context: ApiContext, query: AccountQuery, baseline: BaselineOut | None) -> Response:
    by_machine: list[EnergyTotal] = []

    def add_machine(use: MachineUse) -> None:
        by_machine.append(energy_total(use.machine_id, [use], query.over))

    measured = await measurement_of(context, query, ("energy", "production")).measure(
        _is_metered, add_machine if query.group_by == "machine" else None
    )
    return await json_answer(lambda: _energy_out(query, measured, by_machine, baseline))


def _energy_out(
    query: AccountQuery, measured: MeasuredSums, by_machine: Sequence[EnergyTotal], baseline: BaselineOut | None
) -> EnergyOut:
    groups = by_machine or [
        energy_total(name, members, query.over) for name, members in group_use(measured.sums, query.group_by).items()
    ]
    return EnergyOut(
        **common_fields(query, measured.notes),
        total=_amount_out(energy_total("total", measured.sums, query.over)),
        groups=[_amount_out(group) for group in groups],
        hours=[
            EnergyHour(start=start, energy_kwh=amount, coverage=coverage, fed_in_kwh=fed_in)
            for (start, amount, coverage), fed_in in zip(
                rows_by_hour(sum_energy(measured.sums, query.over)),
                _fed_in_by_hour(measured.sums, query.over),
                strict=True,
            )
        ],
        baseline=baseline,
    )


def _fed_in_by_hour(metered: Sequence[MachineUse], over: TimeRange) -> Sequence[float | None]:
    fed_in = sum_fed_in(metered, over)
    return [None] * over.hours if fed_in is None else fed_in.amount.tolist()


def _amount_out(total: EnergyTotal) -> EnergyAmount:
    return EnergyAmount.model_validate(total, from_attributes=True)


def _baseline_out(
    comparison: BaselineComparison, compared: ComparedMachines, period: TimeRange, interval: Interval
) -> BaselineOut:
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
        machines=len(compared.machines),
        left_out=compared.left_out[:_MAX_NAMED],
        left_out_count=len(compared.left_out),
        cusum_kwh=[finite_or_none(value) for value in savings.cusum.tolist()],
    )
