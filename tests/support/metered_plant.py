"""Machines with meters in memory, whose readings are integrated as ingestion does it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aurum.ingestion.downsample import reduce_points
from aurum.ingestion.meter_answer import check_integration, integrate_meters
from aurum.ingestion.store import MAX_RAW, TOO_MANY_READINGS, Points
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import columns_pb2, ingestion_pb2

Series = tuple[np.ndarray, np.ndarray]  # times in µs, and values
_KEYS_AT_ONCE = 5


@dataclass
class MeteredPlant:
    """A store of meters, and the ingestion service on top of it.

    Attributes:
        series: The readings of each machine and sensor.
        types: The type of each machine; a press by default.
        sites: The site of each machine; north by default.
        answered: How many readings each answer of the store had.
        lists: How many pages of machines were listed.
    """

    series: dict[tuple[str, str], Series]
    types: dict[str, str] = field(default_factory=dict)
    sites: dict[str, str] = field(default_factory=dict)
    answered: list[int] = field(default_factory=list)
    lists: int = 0

    async def read_keys(
        self, keys: Sequence[tuple[str, str]], start_us: int, end_us: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        return [self._read(key, start_us, end_us, points, last) for key in keys[:_KEYS_AT_ONCE]]

    def _read(self, key: tuple[str, str], start_us: int, end_us: int, points: int, last: int) -> Points:
        times, values = self.series[key]
        low, high = times.searchsorted((start_us, end_us))
        times, values = times[low:high], values[low:high]
        if len(times) > MAX_RAW and not points:
            error = InvalidArgumentError.for_field("points", "too many")
            error.reason = TOO_MANY_READINGS
            raise error
        if last:
            times, values = times[-last:], values[-last:]
        found = reduce_points(times, values, start_us, end_us, points)
        self.answered.append(len(found.timestamps))
        return found

    async def integrate_meters(self, request: ingestion_pb2.IntegrateRequest) -> list[columns_pb2.MeterColumns]:
        check_integration(request)
        metered = [
            (machine_id, place)
            for machine_id in sorted(request.machine_ids)
            for place, meter in enumerate(request.meters)
            if (machine_id, meter.sensor) in self.series
        ]
        return [meter async for message in integrate_meters(self, metered, request) for meter in message.meters]

    async def get_machine(self, machine_id: str) -> ingestion_pb2.Machine:
        return ingestion_pb2.Machine(
            machine_id=machine_id,
            machine_type=self.types.get(machine_id, "press"),
            site=self.sites.get(machine_id, "north"),
        )

    async def list_machines(self, request: ingestion_pb2.ListMachinesRequest) -> ingestion_pb2.ListMachinesResponse:
        self.lists += 1
        ids = sorted({machine_id for machine_id, _ in self.series} | self.types.keys())
        found = [each for each in ids if each > request.page_token]
        page = found[: request.page_size]
        machines = [await self.get_machine(each) for each in page]
        token = page[-1] if len(found) > len(page) else ""
        return ingestion_pb2.ListMachinesResponse(machines=machines, next_page_token=token)
