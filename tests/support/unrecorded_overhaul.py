"""A machine that was overhauled, of which neither a record nor a counter tells."""

import time

import numpy as np

from aurum.readings.history import FAULT, OPERATING_HOURS
from aurum.runtime.time_units import HOUR_US
from aurum_sim.machine_types import MOTOR
from aurum_sim.plant_model import run_to_failure
from tests.support.http import http
from tests.support.platform import Platform

MACHINE = "motor-old"


def send_two_lives(plant: Platform, machine: str = MACHINE, *, counted: bool = False, still: int = 0) -> None:
    """Sends two lives of a machine, a day apart.

    Args:
        plant: The platform.
        machine: The machine.
        counted: Whether a counter tells of the lives.
        still: The number of further sensors, whose readings do not change.
    """
    first, second = run_to_failure(MOTOR, 2, 11)
    names = [name for name in first.columns if name != FAULT and (counted or name != OPERATING_HOURS)]
    kept = int(0.95 * len(first.timestamps))
    rows = [
        [life.columns[name][row] for name in names] for life, n in ((first, kept), (second, 400)) for row in range(n)
    ]
    end_us = int(time.time() * 1e6) // HOUR_US * HOUR_US
    hours = np.concatenate([np.arange(kept), kept + 24 + np.arange(400)])
    lines = [",".join(["machine_id", "timestamp", *names, *(f"j_{number:02}" for number in range(still))])]
    for hour, cells in zip(hours - hours[-1], rows, strict=True):
        texts = ["" if np.isnan(value) else repr(float(value)) for value in cells]
        lines.append(",".join([machine, str(end_us + int(hour) * HOUR_US), *texts, *["1"] * still]))
    sent = http("POST", f"{plant.api}/api/readings", "\n".join(lines).encode(), {"Content-Type": "text/csv"})
    assert sent.status == 200, sent.body
    assert http("POST", f"{plant.api}/api/machines", {"machine_id": machine, "machine_type": "motor"}).status == 201
