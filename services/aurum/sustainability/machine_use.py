"""What machines used and produced over a time range, by the meters of the accounting plan."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.sustainability.energy import power_of_current
from aurum.sustainability.hourly import (
    Floats,
    HourlyAmounts,
    TimeRange,
    Times,
    hourly_increases,
    hourly_means,
    integrate,
    sum_hours,
)
from aurum.sustainability.plan import AccountingPlan, FlowMeter, Meters, PowerMeter

GroupBy = Literal["machine", "line", "site"]
Quantity = Literal["energy", "water", "production", "temperature"]

_METER_FIELDS: dict[Quantity, str] = {
    "energy": "power",
    "water": "water",
    "production": "production",
    "temperature": "temperature",
}
_NO_READINGS: tuple[Times, Floats] = (np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True)
class MachineUse:
    """What one machine used and produced. A quantity that is not metered, or was not requested, is None.

    Attributes:
        machine_id: The machine.
        machine_type: Its type.
        site: Its site.
        line: Its line in the accounting plan.
        meters: All meters of its type.
        energy: Energy in kWh.
        water: Water in litres.
        produced: Production in the unit of its meter.
        temperature: The mean of each hour; NaN if it is unknown.
    """

    machine_id: str
    machine_type: str
    site: str
    line: str
    meters: Meters
    energy: HourlyAmounts | None = None
    water: HourlyAmounts | None = None
    produced: HourlyAmounts | None = None
    temperature: Floats | None = None

    def group(self, by: GroupBy) -> str:
        """Returns the name of the machine's group: its own id, its line or its site."""
        return {"machine": self.machine_id, "line": self.line, "site": self.site}[by]


def select_meters(meters: Meters, quantities: Collection[Quantity]) -> Meters:
    """Returns only the meters of some quantities."""
    omitted = {name: None for quantity, name in _METER_FIELDS.items() if quantity not in quantities}
    return meters.model_copy(update=omitted)


def use_from_readings(  # noqa: PLR0917 - what identifies a machine, and what is known of it
    machine_id: str,
    machine_type: str,
    site: str,
    plan: AccountingPlan,
    measured: Meters,
    readings: Mapping[str, tuple[Times, Floats]],
    over: TimeRange,
) -> MachineUse:
    """Computes what a machine used and produced.

    Args:
        machine_id: The machine.
        machine_type: Its type.
        site: Its site.
        plan: The accounting plan.
        measured: The meters of its type whose quantities are computed.
        readings: For each sensor, times in µs since 1970 and values.
        over: The time range.
    """
    gap = plan.longest_gap_seconds
    temperature = None
    if measured.temperature is not None:
        times, values = readings.get(measured.temperature, _NO_READINGS)
        temperature = hourly_means(times, values, over.start, over.end, gap)
    return MachineUse(
        machine_id,
        machine_type,
        site,
        plan.line_of(machine_id),
        plan.meters_of(machine_type),
        _metered_energy(measured.power, readings, over, gap),
        _metered_flow(measured.water, readings, over, gap),
        _metered_flow(measured.production, readings, over, gap),
        temperature,
    )


def group_use(used: Iterable[MachineUse], by: GroupBy) -> dict[str, list[MachineUse]]:
    """Groups machines by themselves, their line or their site, in the order of their first machine."""
    groups: dict[str, list[MachineUse]] = {}
    for use in used:
        groups.setdefault(use.group(by), []).append(use)
    return groups


def sum_energy(used: Iterable[MachineUse], over: TimeRange) -> HourlyAmounts:
    """Returns the energy in kWh of all machines that have a power meter."""
    return sum_hours((use.energy for use in used if use.energy is not None), over.start, over.end)


def sum_water(used: Iterable[MachineUse], over: TimeRange) -> HourlyAmounts:
    """Returns the water in litres of all machines that have a water meter."""
    return sum_hours((use.water for use in used if use.water is not None), over.start, over.end)


def sum_production(used: Sequence[MachineUse], over: TimeRange) -> tuple[HourlyAmounts | None, str | None]:
    """Returns the total production and its unit; None for both if the units differ, or a machine has no meter."""
    units = {use.meters.production_unit if use.produced else None for use in used}
    if len(units) != 1 or None in units:
        return None, None
    return sum_hours((use.produced for use in used if use.produced is not None), over.start, over.end), units.pop()


def _metered_energy(
    meter: PowerMeter | None, readings: Mapping[str, tuple[Times, Floats]], over: TimeRange, gap: float
) -> HourlyAmounts | None:
    if meter is None:
        return None
    times, values = readings.get(meter.sensor, _NO_READINGS)
    if meter.kind == "current":
        values = power_of_current(values, meter.volts, meter.power_factor, meter.phases)
    return integrate(times, values, over.start, over.end, gap)


def _metered_flow(
    meter: FlowMeter | None, readings: Mapping[str, tuple[Times, Floats]], over: TimeRange, gap: float
) -> HourlyAmounts | None:
    if meter is None:
        return None
    times, values = readings.get(meter.sensor, _NO_READINGS)
    accumulate = integrate if meter.kind == "rate" else hourly_increases
    return accumulate(times, values * meter.per_hour, over.start, over.end, gap)
