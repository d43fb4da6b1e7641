"""The rule for known machine types: the position of the latest readings between normal and the alarm limit.

For each sensor x = (latest - normal) / (alarm - normal), at least 0. Its risk is x² / (1 + x²), which is 0 at the
normal value and 0.5 at the alarm limit. The machine's risk is that of its worst sensor. The latest value is the mean of
the last 8 readings.

Most vibration limits are the zone boundaries A/B and C/D of ISO 20816-3 (r.m.s. velocity; group 2 on flexible supports:
2.3 and 7.1 mm/s). The limit for bearing temperatures is 82 °C (API 610; usual lubricants by ISO 281), and that for
windings is 130 °C (insulation class B). The other limits are usual thresholds for maintenance, such as three times the
pressure drop of a clean filter, or the loss of a fifth of flow, pressure or tension.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aurum.heuristics.result import LATEST, RuleResult
from aurum.readings.batch import Column


@dataclass(frozen=True, slots=True)
class SensorRange:
    """Normal value and alarm limit of a sensor, in its unit. An alarm limit below normal is a lower limit."""

    sensor: str
    normal: float
    alarm: float


LIMITS: dict[str, tuple[SensorRange, ...]] = {
    "pump": (
        SensorRange("vibration_mm_s", 2.3, 7.1),
        SensorRange("bearing_temperature_c", 65, 82),
        SensorRange("discharge_pressure_bar", 8.5, 6.8),
        SensorRange("seal_leak_l_h", 0.6, 2.4),
    ),
    "compressor": (
        SensorRange("vibration_mm_s", 2.3, 7.1),
        SensorRange("discharge_temperature_c", 115, 140),
        SensorRange("discharge_pressure_bar", 10.2, 8.2),
        SensorRange("filter_pressure_drop_mbar", 20, 60),
    ),
    "motor": (
        SensorRange("vibration_mm_s", 2.3, 7.1),
        SensorRange("bearing_temperature_c", 65, 82),
        SensorRange("winding_temperature_c", 105, 130),
        SensorRange("insulation_resistance_mohm", 800, 150),
    ),
    "cnc_mill": (
        SensorRange("spindle_vibration_mm_s", 2.3, 7.1),
        SensorRange("spindle_temperature_c", 65, 85),
        SensorRange("surface_roughness_um", 1.4, 3.2),
        SensorRange("axis_backlash_um", 7, 12),
    ),
    "turbofan": (
        SensorRange("t50_k", 1405, 1432),
        SensorRange("t30_k", 1590, 1608),
        SensorRange("fuel_flow_kg_h", 3480, 3630),
    ),
    "conveyor": (
        SensorRange("gearbox_vibration_mm_s", 2.8, 7.1),
        SensorRange("gearbox_oil_temperature_c", 68, 85),
        SensorRange("belt_slip_pct", 1.5, 5.0),
        SensorRange("belt_tension_kn", 12.0, 9.0),
    ),
}


def assess_by_limits(machine_type: str, columns: Mapping[str, Column]) -> RuleResult | None:
    """Assesses a machine by the limits of its type.

    Args:
        machine_type: The machine type.
        columns: For each sensor, times in µs since 1970 and values.

    Returns:
        The result, or None if the type has no limits, or none of the limited sensors has a reading.
    """
    deviations: dict[str, tuple[float, float]] = {}
    for limit in LIMITS.get(machine_type, ()):
        if limit.sensor not in columns:
            continue
        values = columns[limit.sensor][1]
        valid = values[~np.isnan(values)][-LATEST:]
        if len(valid):
            latest = float(valid.mean())
            deviations[limit.sensor] = (latest, (latest - limit.normal) / (limit.alarm - limit.normal))
    if not deviations:
        return None
    ordered = dict(sorted(deviations.items(), key=lambda item: -item[1][1]))
    worst = max(0.0, next(iter(ordered.values()))[1])
    return RuleResult(worst**2 / (1 + worst**2), ordered, "limits")
