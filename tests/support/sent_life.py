"""A simulated life, sent to the API as if it ended now."""

import math

from aurum.readings.batch import now_us
from aurum.readings.history import Run
from tests.support.http import http
from tests.support.platform import Platform


def send_life(platform: Platform, machine: str, run: Run, rows: int) -> None:
    """Registers a pump and sends the first rows of a life, of which the last one is new."""
    body = {"machine_id": machine, "machine_type": "pump", "site": "lab"}
    assert http("POST", f"{platform.api}/api/machines", body).status == 201
    shift = now_us() - int(run.timestamps[rows - 1])
    readings = [
        {"machine_id": machine, "sensor": sensor, "timestamp": (int(at) + shift) / 1e6, "value": value}
        for sensor, column in run.columns.items()
        for at, value in zip(run.timestamps[:rows], column[:rows].tolist(), strict=True)
        if not math.isnan(value)
    ]
    assert http("POST", f"{platform.api}/api/readings", {"readings": readings}).status == 200
