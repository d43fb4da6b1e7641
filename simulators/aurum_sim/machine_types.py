"""The machine types of the simulated plant: their sensors, failure modes, and the effect of each mode on the sensors.

Wear w of a failure mode goes from 0 (new) to 1 (failed). A sensor is a function of load, ambient temperature and wear:

    level     base · (1 + gain·w)
    thermal   ambient + base · (0.35 + 0.65·load²) · (1 + gain·w)       heat of losses, which grow with load²
    vibration base · (0.6 + 0.4·load) · (1 + gain·(e^{3w} - 1)/(e³ - 1))  crack growth, slow and then fast
    power     base · (idle + (1 - idle)·load) · (1 + gain·w)             idle = 0.25
    output    base · load · (1 + gain·w²)                                useful output of the machine
    head      base · (0.8 + 0.2·load) · (1 + gain·w)                     controlled pressure, tension or speed

Gains are by failure mode. White noise proportional to the base is added.
"""

from dataclasses import dataclass
from typing import Literal

SensorKind = Literal["level", "thermal", "vibration", "power", "output", "head"]


@dataclass(frozen=True, slots=True)
class Sensor:
    """A sensor.

    Attributes:
        name: Its name.
        unit: Its unit.
        kind: How it depends on load, ambient temperature and wear.
        base: The base of the formula, in `unit`.
        gains: The gain by failure mode.
        noise: Standard deviation of the noise, relative to base.
    """

    name: str
    unit: str
    kind: SensorKind
    base: float
    gains: dict[str, float]
    noise: float = 0.01


@dataclass(frozen=True, slots=True)
class FailureMode:
    """A way in which a machine fails.

    Attributes:
        name: Its name.
        life_hours: Scale of the life in operating hours. At nominal load the median life is 1.16 times this.
        load_exponent: Exponent of the load in the rate of wear: 3 for bearings by ISO 281, 1 for simple wear.
    """

    name: str
    life_hours: float
    load_exponent: float


@dataclass(frozen=True, slots=True)
class MachineType:
    """A type of machine.

    Attributes:
        name: Its name.
        shifts: Its shifts of 8 hours a day. The machine idles outside them.
        modes: The ways in which it fails.
        sensors: Its sensors.
    """

    name: str
    shifts: int
    modes: tuple[FailureMode, ...]
    sensors: tuple[Sensor, ...]


PUMP = MachineType(
    "pump",
    3,
    (FailureMode("bearing", 520, 3.0), FailureMode("seal", 640, 1.5)),
    (
        Sensor("vibration_mm_s", "mm/s", "vibration", 2.2, {"bearing": 3.2, "seal": 0.2}, 0.05),
        Sensor("bearing_temperature_c", "°C", "thermal", 34, {"bearing": 0.7}, 0.02),
        Sensor("flow_m3_h", "m³/h", "output", 120, {"seal": -0.28}, 0.015),
        Sensor("discharge_pressure_bar", "bar", "head", 8.5, {"seal": -0.22}, 0.012),
        Sensor("seal_leak_l_h", "l/h", "level", 0.4, {"seal": 6.0}, 0.15),
        Sensor("power_kw", "kW", "power", 45, {"bearing": 0.1, "seal": 0.06}, 0.012),
        Sensor("motor_current_a", "A", "power", 82, {"bearing": 0.11, "seal": 0.05}, 0.012),
        Sensor("water_l_h", "l/h", "level", 18, {"seal": 0.5}, 0.05),
    ),
)
COMPRESSOR = MachineType(
    "compressor",
    3,
    (FailureMode("valve", 480, 1.5), FailureMode("fouling", 600, 1.0)),
    (
        Sensor("discharge_temperature_c", "°C", "thermal", 88, {"valve": 0.28, "fouling": 0.15}, 0.012),
        Sensor("discharge_pressure_bar", "bar", "head", 10.2, {"valve": -0.2, "fouling": -0.05}, 0.01),
        Sensor("intake_pressure_bar", "bar", "level", 0.99, {"fouling": -0.09}, 0.004),
        Sensor("air_flow_m3_min", "m³/min", "output", 22, {"valve": -0.2, "fouling": -0.16}, 0.015),
        Sensor("vibration_mm_s", "mm/s", "vibration", 3.1, {"valve": 1.6}, 0.05),
        Sensor("oil_temperature_c", "°C", "thermal", 46, {"valve": 0.15, "fouling": 0.3}, 0.015),
        Sensor("power_kw", "kW", "power", 132, {"valve": 0.12, "fouling": 0.13}, 0.01),
        Sensor("filter_pressure_drop_mbar", "mbar", "level", 18, {"fouling": 3.5}, 0.06),
    ),
)
MOTOR = MachineType(
    "motor",
    2,
    (FailureMode("bearing", 560, 3.0), FailureMode("insulation", 700, 2.0)),
    (
        Sensor("vibration_mm_s", "mm/s", "vibration", 1.6, {"bearing": 4.0}, 0.05),
        Sensor("high_frequency_vibration_g", "g", "vibration", 0.7, {"bearing": 6.0}, 0.09),
        Sensor("winding_temperature_c", "°C", "thermal", 72, {"insulation": 0.35, "bearing": 0.05}, 0.012),
        Sensor("bearing_temperature_c", "°C", "thermal", 38, {"bearing": 0.6}, 0.02),
        Sensor("current_a", "A", "power", 140, {"insulation": 0.12, "bearing": 0.05}, 0.01),
        Sensor("power_kw", "kW", "power", 75, {"insulation": 0.07, "bearing": 0.05}, 0.01),
        Sensor("insulation_resistance_mohm", "MΩ", "level", 900, {"insulation": -0.85}, 0.05),
        Sensor("speed_rpm", "1/min", "head", 1485, {"bearing": -0.01}, 0.002),
    ),
)
CNC_MILL = MachineType(
    "cnc_mill",
    2,
    (FailureMode("spindle", 620, 2.5), FailureMode("tool", 300, 1.2)),
    (
        Sensor("spindle_vibration_mm_s", "mm/s", "vibration", 1.9, {"spindle": 2.6, "tool": 1.2}, 0.06),
        Sensor("spindle_temperature_c", "°C", "thermal", 41, {"spindle": 0.5, "tool": 0.1}, 0.02),
        Sensor("spindle_current_a", "A", "power", 31, {"tool": 0.35, "spindle": 0.1}, 0.02),
        Sensor("cutting_force_n", "N", "output", 820, {"tool": 0.6}, 0.03),
        Sensor("surface_roughness_um", "µm", "level", 1.2, {"tool": 1.6, "spindle": 0.5}, 0.05),
        Sensor("power_kw", "kW", "power", 18.5, {"tool": 0.22, "spindle": 0.08}, 0.015),
        Sensor("coolant_flow_l_min", "l/min", "head", 24, {"spindle": -0.05}, 0.02),
        Sensor("axis_backlash_um", "µm", "level", 6.0, {"spindle": 1.1}, 0.05),
    ),
)
TURBOFAN = MachineType(
    "turbofan",
    3,
    (FailureMode("hpc_degradation", 420, 1.5), FailureMode("fan_degradation", 520, 1.5)),
    (
        Sensor("t24_k", "K", "level", 642, {"fan_degradation": 0.004, "hpc_degradation": 0.001}, 0.0007),
        Sensor("t30_k", "K", "level", 1585, {"hpc_degradation": 0.014, "fan_degradation": 0.004}, 0.003),
        Sensor("t50_k", "K", "level", 1400, {"hpc_degradation": 0.022, "fan_degradation": 0.012}, 0.004),
        Sensor("p30_kpa", "kPa", "head", 3815, {"hpc_degradation": -0.012, "fan_degradation": 0.003}, 0.001),
        Sensor("fan_speed_rpm", "1/min", "head", 2388, {"fan_degradation": 0.006}, 0.0004),
        Sensor("core_speed_rpm", "1/min", "head", 9060, {"hpc_degradation": 0.012}, 0.001),
        Sensor("bypass_ratio", "1", "level", 8.42, {"fan_degradation": 0.02, "hpc_degradation": 0.008}, 0.004),
        Sensor("fuel_flow_kg_h", "kg/h", "power", 3450, {"hpc_degradation": 0.05, "fan_degradation": 0.04}, 0.006),
    ),
)
CONVEYOR = MachineType(
    "conveyor",
    3,
    (FailureMode("belt", 580, 1.0), FailureMode("gearbox", 660, 3.0)),
    (
        Sensor("belt_speed_m_s", "m/s", "head", 1.8, {"belt": -0.1}, 0.006),
        Sensor("belt_slip_pct", "%", "level", 1.1, {"belt": 4.5}, 0.1),
        Sensor("belt_tension_kn", "kN", "head", 12.5, {"belt": -0.3}, 0.02),
        Sensor("gearbox_vibration_mm_s", "mm/s", "vibration", 2.4, {"gearbox": 3.0}, 0.05),
        Sensor("gearbox_oil_temperature_c", "°C", "thermal", 39, {"gearbox": 0.55}, 0.02),
        Sensor("throughput_t_h", "t/h", "output", 310, {"belt": -0.2}, 0.02),
        Sensor("power_kw", "kW", "power", 37, {"gearbox": 0.14, "belt": 0.1}, 0.012),
        Sensor("motor_current_a", "A", "power", 66, {"gearbox": 0.14, "belt": 0.11}, 0.012),
    ),
)
MACHINE_TYPES: dict[str, MachineType] = {
    machine_type.name: machine_type for machine_type in (PUMP, COMPRESSOR, MOTOR, CNC_MILL, TURBOFAN, CONVEYOR)
}
