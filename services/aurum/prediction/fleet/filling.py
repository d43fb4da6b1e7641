"""Fills windows from the store: after a start, after a gap, and of machines whose readings arrive late."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aurum.prediction.fleet.fleet import Fill, Fleet
from aurum.prediction.serving.inputs import rule_reason
from aurum.prediction.serving.readings_client import MachineReadings, ReadingsClient
from aurum.prediction.serving.registry import ModelRegistry
from aurum.resilience import Criticality, criticality_scope
from aurum.runtime.errors import AurumError

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnModelThread = Callable[[Callable[[], T]], Awaitable[T]]

_MACHINES = 32  # of a fill, at most; fewer after a failure, and while queries take long
_QUERY_SECONDS = 0.7  # that the queries of a fill should take at most, so that they delay no others
_FILLS = 6  # in progress
_QUERIES = 2  # at a time
_IDLE_SECONDS = 0.1
_RETRY_SECONDS = 1.0


class WindowFilling:
    """Fills windows in the background.

    Args:
        fleet: The machines.
        reader: Reads from ingestion.
        registry: The models.
        run_on_model_thread: Runs a function on the model thread.
        settle_seconds: Seconds after which the stream has delivered the readings that a query found.
    """

    def __init__(
        self,
        fleet: Fleet,
        reader: ReadingsClient,
        registry: ModelRegistry,
        run_on_model_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        settle_seconds: float,
    ) -> None:
        self._fleet = fleet
        self._reader = reader
        self._registry = registry
        self._run = run_on_model_thread
        self._settle_seconds = settle_seconds
        self._queries = asyncio.Semaphore(_QUERIES)
        self._machines = _MACHINES // 2
        self._failing = False  # whether the last fill failed

    async def run(self) -> None:
        """Runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_FILLS):
                tasks.create_task(self._work())

    async def _work(self) -> None:
        while True:
            fill: Fill | None = None
            if self._fleet.waits_for_fill:
                fill = await self._run(lambda: self._fleet.next_fill(self._machines))
            if fill is None:
                await asyncio.sleep(_IDLE_SECONDS)
                continue
            try:
                with criticality_scope(Criticality.BATCH):
                    await self._fill(fill)
                self._failing = False
            except AurumError as error:
                if not self._failing:  # all fills fail while ingestion is away, several times a second
                    logger.warning("windows cannot be filled; they are when ingestion answers: %s", error.message)
                self._failing = True
                self._machines = max(1, len(fill.machines) // 2)
                await self._put_back(fill)
                await asyncio.sleep(_RETRY_SECONDS)

    async def _put_back(self, fill: Fill) -> None:
        await self._run(lambda: self._fleet.put_back(fill, "failed"))

    async def _fill(self, fill: Fill) -> None:
        """Fills the windows of some machines. Raises AurumError if ingestion did not answer."""
        async with self._queries:
            started = time.monotonic()
            latest = await self._reader.newest(fill.machine_ids)
            # The stream delivers all readings of machines that had none at this moment
            begun = [machine_id for machine_id in fill.machine_ids if machine_id in latest]
            readings = await self._reader.latest(begun, fill.spec)
            seconds = time.monotonic() - started
        if seconds > _QUERY_SECONDS:
            self._machines = max(1, int(len(fill.machines) * _QUERY_SECONDS / seconds))
        else:
            self._machines = min(_MACHINES, self._machines + 1)
        await asyncio.sleep(self._settle_seconds)
        columns, newest = _columns(readings), _columns(latest)
        unfit: list[int] = await self._run(lambda: self._fleet.install(fill, columns, newest))
        if not unfit:
            return
        names = dict(zip(fill.machines, fill.machine_ids, strict=True))
        async with self._queries:
            of_all_sensors = await self._reader.latest([names[machine] for machine in unfit], None)
        await asyncio.sleep(self._settle_seconds)
        await self._run(lambda: self._install_for_rule(unfit, fill, of_all_sensors, readings))

    def _install_for_rule(
        self,
        unfit: list[int],
        fill: Fill,
        readings: dict[str, MachineReadings],
        of_model: dict[str, MachineReadings],
    ) -> None:
        names = dict(zip(fill.machines, fill.machine_ids, strict=True))
        for machine in unfit:
            machine_type = self._fleet.table.type_of(machine)
            present = of_model[names[machine]].columns
            spec = fill.spec
            missing = next((each for each in (spec.queried if spec else ()) if each not in present), "")
            reason = rule_reason(machine_type, self._registry.active(machine_type), missing)
            found = readings.get(names[machine])
            self._fleet.install_for_rule(fill, machine, found.columns if found else {}, reason)


def _columns(readings: dict[str, MachineReadings]) -> dict[str, Any]:
    return {machine_id: each.columns for machine_id, each in readings.items()}
