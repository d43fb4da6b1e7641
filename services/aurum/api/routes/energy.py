"""Energy by electric meters, and savings against a baseline."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Query, Response

from aurum.api.accounting import MachineUse, Quantity, Range, account, range_of
from aurum.api.context import ApiContext, Context, require_feature
from aurum.api.convert import finite, moment, query_time
from aurum.api.long_answers import QueryPlace
from aurum.api.routes.accounts import EXPORTED, Asked, AskedFor, Columns, by_group, by_hour, export, groups_of, head
from aurum.api.sustainability_schemas import BaselineOut, EnergyAmount, EnergyHour, EnergyOut
from aurum.runtime.errors import InvalidArgumentError
from aurum.sustainability.baseline import BaselineError, by_day, fit_baseline, savings
from aurum.sustainability.energy import specific
from aurum.sustainability.hourly import Floats, Hourly, add

router = APIRouter(tags=["sustainability"], dependencies=[Depends(require_feature("energy")), QueryPlace])

Interval = Literal["hour", "day"]
_Intervals = tuple[Floats, dict[str, Floats]]  # energy of each interval, and the variables that it depends on
_OF_BASELINE: tuple[Quantity, ...] = ("energy", "production", "temperature")

_WELL_KNOWN = 0.9  # coverage that an hour needs to count for a baseline


@router.get("/api/energy", response_model=EnergyOut, responses=EXPORTED)
async def energy(
    context: Context,
    asked: AskedFor,
    baseline_start: Annotated[
        str | None, Query(description="With baseline_end: a normal period, to which this one is compared.")
    ] = None,
    baseline_end: Annotated[str | None, Query(description="Likewise, exclusive.")] = None,
    baseline_interval: Interval = "hour",
) -> EnergyOut | Response:
    """Energy of machines, lines or sites, with the share of the time that is known; and what was saved against a
    baseline, if one is asked for."""
    if asked.format != "json":
        return await _export(context, asked)
    before = period = None
    if baseline_start or baseline_end:
        if not (baseline_start and baseline_end):
            raise InvalidArgumentError.of("baseline_end", "and baseline_start must be given together")
        period = range_of(query_time("baseline_start", baseline_start), query_time("baseline_end", baseline_end))
        before = await asyncio.to_thread(
            _intervals, await _account(context, asked, period, _OF_BASELINE), period, baseline_interval
        )
    used = await _account(context, asked, asked.over, _OF_BASELINE if period else ("energy", "production"))
    baseline = None
    if before is not None and period is not None:
        baseline = await asyncio.to_thread(_baseline, before, used, period, asked.over, baseline_interval)
    return await asyncio.to_thread(_answer, asked, used, baseline)


async def _account(
    context: ApiContext, asked: Asked, over: Range, quantities: Sequence[Quantity]
) -> Sequence[MachineUse]:
    return await account(context.ingestion, context.plan, asked.scope, over, quantities, asked.held)


async def _export(context: ApiContext, asked: Asked) -> Response:
    used = await _account(context, asked, asked.over, ("energy",))
    groups = groups_of([use for use in used if use.energy is not None], asked.group_by)
    del used  # so that each group is released when it is written

    def columns(members: Sequence[MachineUse]) -> Columns:
        sum_ = energy_of(members, asked.over)
        return {"energy_kwh": sum_.amount, "covered_seconds": sum_.covered}

    return await export(asked, by_group(groups, columns), ("energy_kwh", "covered_seconds"), "energy")


def _answer(asked: Asked, used: Sequence[MachineUse], baseline: BaselineOut | None) -> EnergyOut:
    metered = [use for use in used if use.energy is not None]
    return EnergyOut(
        **head(asked, [use.machine_id for use in used if use.energy is None]),
        total=_amount("total", metered, asked.over),
        groups=[_amount(name, members, asked.over) for name, members in groups_of(metered, asked.group_by).items()],
        hours=[
            EnergyHour(start=start, energy_kwh=amount, coverage=coverage)
            for start, amount, coverage in by_hour(energy_of(metered, asked.over))
        ],
        baseline=baseline,
    )


def energy_of(used: Sequence[MachineUse], over: Range) -> Hourly:
    return add((use.energy for use in used if use.energy is not None), over.start, over.end)


def _amount(name: str, used: Sequence[MachineUse], over: Range) -> EnergyAmount:
    sum_ = energy_of(used, over)
    produced, unit = _produced(used, over)
    return EnergyAmount(
        name=name,
        energy_kwh=sum_.total,
        estimated_kwh=sum_.estimate,
        coverage=sum_.coverage,
        produced=produced.total if produced else None,
        production_unit=unit,
        specific_kwh=specific(sum_.total, produced.total) if produced else None,
    )


def _produced(used: Sequence[MachineUse], over: Range) -> tuple[Hourly | None, str | None]:
    """Returns the total production of machines and its unit, or None if their units differ or one has no meter."""
    units = {use.meters.production_unit if use.produced else None for use in used}
    if len(units) != 1 or None in units:
        return None, None
    return add((use.produced for use in used if use.produced is not None), over.start, over.end), units.pop()


def _baseline(
    before: _Intervals, now: Sequence[MachineUse], period: Range, over: Range, interval: Interval
) -> BaselineOut:
    """Fits a baseline to a period and compares another range with it.

    Args:
        before: The intervals of the baseline period.
        now: The use in the range that is compared.
        period: The baseline period.
        over: The range that is compared.
        interval: Whether to use hours or days.

    Raises:
        InvalidArgumentError: The period is not suitable, or the range lacks a variable of the baseline.
    """
    try:
        fitted = fit_baseline(*before)
    except BaselineError as error:
        raise InvalidArgumentError.of("baseline_start", str(error)) from error
    energy_now, variables_now = _intervals(now, over, interval)
    lacking = [name for name in fitted.variables if name not in variables_now]
    if lacking:
        raise InvalidArgumentError.of("start", f"is of a time without {lacking[0]}, which the baseline needs")
    found = savings(fitted, energy_now, variables_now)
    return BaselineOut(
        start=moment(period.start),
        end=moment(period.end),
        interval=interval,
        intervals=fitted.intervals,
        intercept_kwh=fitted.intercept,
        coefficients=dict(zip(fitted.variables, fitted.coefficients, strict=True)),
        t_statistics=dict(zip(fitted.variables, fitted.t, strict=True)),
        r_squared=fitted.r_squared,
        cv_rmse=fitted.cv_rmse,
        expected_kwh=found.expected,
        actual_kwh=found.actual,
        savings_kwh=found.savings,
        savings_share=found.share,
        intervals_outside=found.outside,
        cusum_kwh=[finite(value) for value in found.cusum.tolist()],
    )


def _intervals(used: Sequence[MachineUse], over: Range, interval: Interval) -> _Intervals:
    """Returns the energy of each interval, and the variables production and temperature, if they are metered.

    Energy and production are NaN in hours with a coverage below 0.9. Production is omitted if less than half of the
    range is known.
    """
    metered = [use for use in used if use.energy is not None]
    sum_ = energy_of(metered, over)
    known = sum_.covered >= _WELL_KNOWN * np.maximum(sum_.wanted, 3600.0 * len(metered))
    columns = {"energy": np.where(known, sum_.amount, np.nan)}
    produced, _ = _produced(metered, over)
    if produced is not None and produced.estimate is not None:
        enough = produced.covered >= _WELL_KNOWN * produced.wanted
        columns["production"] = np.where(enough, produced.amount, np.nan)
    temperatures = [use.temperature for use in metered if use.temperature is not None]
    if temperatures:
        there = ~np.isnan(temperatures)
        count = there.sum(axis=0)
        columns["temperature"] = np.where(count > 0, np.nansum(temperatures, axis=0) / np.maximum(count, 1), np.nan)
    if interval == "day":
        columns = {
            name: by_day(over.first_hour, values, mean=name == "temperature") for name, values in columns.items()
        }
    return columns.pop("energy"), columns
