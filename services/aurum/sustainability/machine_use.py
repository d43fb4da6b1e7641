"""What machines used and produced over a time range, by the meters of the accounting plan."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from aurum.sustainability.corrections import NO_CORRECTIONS, CorrectionLog, MeterCorrection
from aurum.sustainability.counters import Correction
from aurum.sustainability.energy import power_of_current
from aurum.sustainability.hourly import Floats, HourlyAmounts, TimeRange, seconds_in_range, sum_hours
from aurum.sustainability.plan import AccountingPlan, FlowMeter, Meters, PowerMeter

GroupBy = Literal["machine", "line", "site"]
Quantity = Literal["energy", "water", "production", "temperature"]

_METER_FIELDS: dict[Quantity, tuple[str, ...]] = {
    "energy": ("power", "feed_in"),
    "water": ("water",),
    "production": ("production",),
    "temperature": ("temperature",),
}


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


@dataclass(frozen=True, slots=True)
class MeterReport:
    """What a meter of a machine measured, in the unit of its sensor.

    Attributes:
        amounts: The amount of each hour; of a rate, its integral over hours.
        reverse: What ran backwards in each hour, if the meter runs both ways.
        covered: Seconds of each hour between readings that are close enough.
        bridged: Seconds in longer gaps of a counter whose increase is known.
        corrections: What was corrected in the readings of a counter: the first ones, by time.
        counts: The number of all corrections, by kind.
    """

    amounts: Floats
    reverse: Floats | None
    covered: Floats
    bridged: float = 0.0
    corrections: Sequence[Correction] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


Reports = Mapping[PowerMeter | FlowMeter | str, MeterReport]
"""By meter, or by the name of the sensor of a temperature. A meter without readings is missing."""


def use_from_reports(  # noqa: PLR0917 - what identifies a machine, and what is known of it
    machine_id: str,
    machine_type: str,
    site: str,
    plan: AccountingPlan,
    measured: Meters,
    reports: Reports,
    over: TimeRange,
) -> MachineUse:
    """Computes what a machine used and produced from what its meters measured.

    Args:
        machine_id: The machine.
        machine_type: Its type.
        site: Its site.
        plan: The accounting plan.
        measured: The meters of its type whose quantities are computed.
        reports: What they measured.
        over: The time range.
    """
    energy = fed_in = water = produced = temperature = None
    logs: list[CorrectionLog] = []
    if measured.power is not None:
        energy, reverse, log = _amounts_of(
            reports.get(measured.power), over, measured.power.sensor, *_energy_of(measured.power)
        )
        fed_in = reverse if measured.power.bidirectional else None
        logs.append(log)
    if measured.feed_in is not None:
        fed_in, _, log = _amounts_of(
            reports.get(measured.feed_in), over, measured.feed_in.sensor, *_energy_of(measured.feed_in)
        )
        logs.append(log)
    if measured.water is not None:
        water, _, log = _amounts_of(
            reports.get(measured.water), over, measured.water.sensor, measured.water.per_hour, "l"
        )
        logs.append(log)
    if measured.production is not None:
        meter, unit = measured.production, measured.production_unit
        produced, _, log = _amounts_of(reports.get(meter), over, meter.sensor, meter.per_hour, unit)
        logs.append(log)
    if measured.temperature is not None:
        report = reports.get(measured.temperature)
        temperature = _amounts_of(report, over, measured.temperature, 1.0, "")[0].means
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
        CorrectionLog.joined(logs),
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


def _energy_of(meter: PowerMeter) -> tuple[float, str]:
    """Returns the factor that converts what a meter measured to kWh, and the unit."""
    if meter.kind == "current":
        power = power_of_current(np.array([meter.factor]), meter.volts, meter.power_factor, meter.phases)
        return float(power[0]), "kWh"
    return meter.factor, "kWh"


def _amounts_of(
    report: MeterReport | None, over: TimeRange, sensor: str, factor: float, unit: str
) -> tuple[HourlyAmounts, HourlyAmounts, CorrectionLog]:
    """Returns the amounts of a meter, what ran backwards, and its corrections.

    Args:
        report: What it measured; None if it has no readings.
        over: The time range.
        sensor: Its sensor.
        factor: Converts the unit of the sensor.
        unit: The unit that results.
    """
    in_range = seconds_in_range(over)
    nothing = np.zeros(over.hours)
    if report is None:
        empty = HourlyAmounts(over.first_hour, nothing, nothing, in_range)
        return empty, empty, NO_CORRECTIONS
    amounts, reverse = (
        HourlyAmounts(over.first_hour, column * factor, report.covered, in_range, report.bridged)
        for column in (report.amounts, nothing if report.reverse is None else report.reverse)
    )
    listed = [
        MeterCorrection(each.kind, sensor, each.start_us, each.end_us, each.amount * factor, unit)
        for each in report.corrections
    ]
    return amounts, reverse, CorrectionLog(tuple(listed), report.counts)
