"""What machines used and produced over a time range, by the meters of the accounting plan."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aurum.sustainability.corrections import NO_CORRECTIONS, CorrectionLog, MeterCorrection, corrections_within
from aurum.sustainability.counters import consumption
from aurum.sustainability.energy import power_of_current
from aurum.sustainability.hourly import (
    Floats,
    HourlyAmounts,
    TimeRange,
    Times,
    add_zero_crossings,
    hourly_means,
    integrate,
    spread_increases,
    sum_hours,
)
from aurum.sustainability.plan import AccountingPlan, FlowMeter, Meters, PowerMeter

GroupBy = Literal["machine", "line", "site"]
Quantity = Literal["energy", "water", "production", "temperature"]

_METER_FIELDS: dict[Quantity, tuple[str, ...]] = {
    "energy": ("power", "feed_in"),
    "water": ("water",),
    "production": ("production",),
    "temperature": ("temperature",),
}
Readings = Mapping[str, tuple[Times, Floats]]

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
        fed_in: Energy in kWh that the machine fed in; None if that is not metered.
        corrections: What was corrected in the readings of its counters.
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
    fed_in: HourlyAmounts | None = None
    corrections: CorrectionLog = NO_CORRECTIONS

    def group(self, by: GroupBy) -> str:
        """Returns the name of the machine's group: its own id, its line or its site."""
        return {"machine": self.machine_id, "line": self.line, "site": self.site}[by]


def select_meters(meters: Meters, quantities: Collection[Quantity]) -> Meters:
    """Returns only the meters of some quantities."""
    omitted = [names for quantity, names in _METER_FIELDS.items() if quantity not in quantities]
    return meters.model_copy(update=dict.fromkeys(name for names in omitted for name in names))


def use_from_readings(  # noqa: PLR0917 - what identifies a machine, and what is known of it
    machine_id: str,
    machine_type: str,
    site: str,
    plan: AccountingPlan,
    measured: Meters,
    readings: Readings,
    over: TimeRange,
    reduced: Collection[str] = (),
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
        reduced: The counters whose readings are means of intervals, because there are too many.
    """
    gap = plan.longest_gap_seconds
    energy, fed_in, corrections = _metered_energy(measured.power, readings, over, gap)
    if measured.feed_in is not None:
        fed_in, _, more = _metered_energy(measured.feed_in, readings, over, gap)
        corrections += more
    water, of_water = _metered_flow(measured.water, "l", readings, over, gap)
    produced, of_production = _metered_flow(measured.production, measured.production_unit, readings, over, gap)
    reductions = [MeterCorrection("reduced", sensor, over.start, over.end, 0.0, "") for sensor in reduced]
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
        energy,
        water,
        produced,
        temperature,
        fed_in,
        CorrectionLog.of(corrections + of_water + of_production + reductions),
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


def sum_fed_in(used: Iterable[MachineUse], over: TimeRange) -> HourlyAmounts | None:
    """Returns the energy in kWh that machines fed in; None if it is metered for none of them."""
    metered = [use.fed_in for use in used if use.fed_in is not None]
    return sum_hours(metered, over.start, over.end) if metered else None


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
    meter: PowerMeter | None, readings: Readings, over: TimeRange, gap: float
) -> tuple[HourlyAmounts | None, HourlyAmounts | None, list[MeterCorrection]]:
    """Returns the energy in kWh, what was fed in if the meter is bidirectional, and the corrections."""
    if meter is None:
        return None, None, []
    times, values = readings.get(meter.sensor, _NO_READINGS)
    if meter.kind == "counter":
        used = consumption(times, values, meter.rules)
        energy, fed_in = (
            spread_increases(used.times, steps * meter.factor, over.start, over.end, gap)
            for steps in (used.increases, used.decreases)
        )
        corrections = corrections_within(meter.sensor, used, over, gap, meter.factor, "kWh")
        return energy, fed_in if meter.bidirectional else None, corrections
    values = values * meter.factor
    if meter.kind == "current":
        values = power_of_current(values, meter.volts, meter.power_factor, meter.phases)
    if not meter.bidirectional:
        return integrate(times, values, over.start, over.end, gap), None, []
    times, values = add_zero_crossings(times, values, gap)
    drawn = integrate(times, np.maximum(values, 0.0), over.start, over.end, gap)
    return drawn, integrate(times, np.maximum(-values, 0.0), over.start, over.end, gap), []


def _metered_flow(
    meter: FlowMeter | None, unit: str, readings: Readings, over: TimeRange, gap: float
) -> tuple[HourlyAmounts | None, list[MeterCorrection]]:
    if meter is None:
        return None, []
    times, values = readings.get(meter.sensor, _NO_READINGS)
    if meter.kind == "rate":
        return integrate(times, values * meter.per_hour, over.start, over.end, gap), []
    used = consumption(times, values, meter.rules)
    amounts = spread_increases(used.times, used.increases * meter.per_hour, over.start, over.end, gap)
    return amounts, corrections_within(meter.sensor, used, over, gap, meter.per_hour, unit)
