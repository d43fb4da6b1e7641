"""How windows are filled after a start: nothing is asked of the store for machines that have no readings."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from aurum.prediction.fleet.filling import WindowFilling
from aurum.prediction.fleet.fleet import Fleet
from aurum.prediction.fleet.machine_table import BY_MODEL, BY_RULE, FILLING
from aurum.prediction.model.features import FeatureSpec
from aurum.prediction.serving.readings_client import MachineReadings, ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from tests.support.models import pump_model
from tests.support.waiting import until


class Reader:
    """Readings of one machine; it remembers of which machines the store was asked."""

    def __init__(self, machine_id: str, sensors: Sequence[str]) -> None:
        times = 1_700_000_000_000_000 + np.arange(5) * 1_000_000
        columns = {sensor: (times, np.arange(5.0)) for sensor in sensors}
        self.readings = {machine_id: MachineReadings(machine_id, columns)}
        self.asked: list[str] = []

    async def latest(self, machine_ids: Sequence[str], spec: FeatureSpec | None) -> dict[str, MachineReadings]:
        del spec
        self.asked += machine_ids
        return {each: self.readings[each] for each in machine_ids if each in self.readings}

    async def newest(self, machine_ids: Sequence[str]) -> dict[str, MachineReadings]:
        return {each: self.readings[each] for each in machine_ids if each in self.readings}


async def test_machines_without_readings_are_not_queried(tmp_path: Path) -> None:
    pump_model(tmp_path)
    registry = ModelRegistry(tmp_path)
    model = registry.active("pump")
    assert model is not None
    fleet = Fleet(registry, (), 10_000_000)
    for number in range(20):
        fleet.note_machine(f"P-{number}", "pump")
    reader = Reader("P-7", model.spec.queried)

    async def run(work: Callable[[], Any]) -> Any:
        return work()

    filling = asyncio.create_task(WindowFilling(fleet, cast("ReadingsClient", reader), registry, run, 0.0).run())
    try:
        await until(lambda: not (fleet.table.mode[: len(fleet.table)] == FILLING).any(), "all machines are filled")
    finally:
        filling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await filling
    assert reader.asked == ["P-7"]
    assert set(fleet.table.mode[: len(fleet.table)].tolist()) <= {BY_MODEL, BY_RULE}
    assert fleet.table.last_seen[7] == 1_700_000_004_000_000
    assert fleet.table.latest_known[: len(fleet.table)].all()
