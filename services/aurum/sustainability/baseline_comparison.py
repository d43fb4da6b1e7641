"""Compares the energy of machines in a time range with a baseline that is fitted to another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.sustainability.baseline import Baseline, BaselineError, Savings, by_day, fit_baseline, savings
from aurum.sustainability.hourly import Floats, TimeRange
from aurum.sustainability.machine_use import MachineUse, sum_energy, sum_production

Interval = Literal["hour", "day"]
Intervals = tuple[Floats, dict[str, Floats]]  # the energy of each interval, and its variables by name

_MIN_COVERAGE = 0.9  # that an hour needs to count
_ALIKE = 0.5  # share of the coverage of one period that a machine must have in the other


class MissingVariableError(BaselineError):
    """The compared range lacks a variable of the baseline. The message names it."""


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """A baseline, and the savings of another range against it."""

    baseline: Baseline
    savings: Savings


@dataclass(frozen=True, slots=True)
class ComparedMachines:
    """The machines whose energy is compared.

    Attributes:
        machines: Those that are measured about as well in both periods.
        left_out: The others, by id.
    """

    machines: frozenset[str]
    left_out: list[str]


def machines_of_both(before: Mapping[str, float], after: Mapping[str, float]) -> ComparedMachines:
    """Returns the machines that can be compared, so that both sums are those of the same machines.

    Args:
        before: The coverage of each machine in the baseline period.
        after: The coverage of each machine in the range that is compared.
    """
    metered = before.keys() | after.keys()
    coverage = {machine_id: (before.get(machine_id, 0.0), after.get(machine_id, 0.0)) for machine_id in metered}
    machines = frozenset(
        machine_id for machine_id, both in coverage.items() if max(both) > 0 and min(both) >= _ALIKE * max(both)
    )
    return ComparedMachines(machines, sorted(metered - machines))


def compare_with_baseline(before: Intervals, after: Intervals) -> BaselineComparison:
    """Fits a baseline to a period and compares another range with it.

    Args:
        before: The intervals of the baseline period.
        after: The intervals of the range that is compared, of the same machines.

    Raises:
        MissingVariableError: The range lacks a variable of the baseline.
        BaselineError: The period is not suitable.
    """
    baseline = fit_baseline(*before)
    energy, variables = after
    missing = [name for name in baseline.variables if name not in variables]
    if missing:
        raise MissingVariableError(f"the range has no readings of {missing[0]}, which the baseline needs")
    return BaselineComparison(baseline, savings(baseline, energy, variables))


def energy_intervals(used: Sequence[MachineUse], over: TimeRange, interval: Interval) -> Intervals:
    """Returns the energy of each interval, and the variables production and temperature, if they are metered.

    Energy and production are NaN in hours with a coverage below 0.9. Production is omitted if less than half of the
    range is covered.
    """
    metered = [use for use in used if use.energy is not None]
    energy = sum_energy(metered, over)
    covered = energy.covered >= _MIN_COVERAGE * np.maximum(energy.in_range, 3600.0 * len(metered))
    columns = {"energy": np.where(covered, energy.amount, np.nan)}
    produced, _ = sum_production(metered, over)
    if produced is not None and produced.estimate is not None:
        produced_covered = produced.covered >= _MIN_COVERAGE * produced.in_range
        columns["production"] = np.where(produced_covered, produced.amount, np.nan)
    temperatures = [use.temperature for use in metered if use.temperature is not None]
    if temperatures:
        count = (~np.isnan(temperatures)).sum(axis=0)
        columns["temperature"] = np.where(count > 0, np.nansum(temperatures, axis=0) / np.maximum(count, 1), np.nan)
    if interval == "day":
        columns = {
            name: by_day(over.first_hour, values, mean=name == "temperature") for name, values in columns.items()
        }
    return columns.pop("energy"), columns
