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


def send_two_lives(plant: Platform) -> None:
    """Sends two lives of a machine, a day apart, of which no counter tells."""
    first, second = run_to_failure(MOTOR, 2, 11)
    names = [name for name in first.columns if name not in (OPERATING_HOURS, FAULT)]
    kept = int(0.95 * len(first.timestamps))
    rows = [
        [life.columns[name][row] for name in names] for life, n in ((first, kept), (second, 400)) for row in range(n)
    ]
    end_us = int(time.time() * 1e6) // HOUR_US * HOUR_US
    hours = np.concatenate([np.arange(kept), kept + 24 + np.arange(400)])
    lines = [",".join(["machine_id", "timestamp", *names])]
    for hour, cells in zip(hours - hours[-1], rows, strict=True):
        texts = ["" if np.isnan(value) else repr(float(value)) for value in cells]
        lines.append(",".join([MACHINE, str(end_us + int(hour) * HOUR_US), *texts]))
    sent = http("POST", f"{plant.api}/api/readings", "\n".join(lines).encode(), {"Content-Type": "text/csv"})
    assert sent.status == 200, sent.body
    assert http("POST", f"{plant.api}/api/machines", {"machine_id": MACHINE, "machine_type": "motor"}).status == 201
