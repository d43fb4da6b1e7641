"""Fetches from ingestion the readings that a prediction needs, back to the start of its window."""

import asyncio
import collections
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from aurum.prediction.model.features import TIME, WINDOW, FeatureSpec
from aurum.readings.batch import Column
from aurum.readings.transport.query_columns import TOO_MANY_SERIES, decode_columns, query_method
from aurum.runtime.errors import InvalidArgumentError
from aurum.runtime.grpc.client import Dependency
from aurum.runtime.time_units import HOUR_US
from aurum.v1 import ingestion_pb2, ingestion_pb2_grpc

T = TypeVar("T")

_LAST = 256  # readings of each sensor in the first query
_SERIES_AT_ONCE = 1000  # in one query, which has to end within its attempt
_MOST_SERIES = 10_000  # of machines whose sensors are all read for one request; more take longer than callers wait
_POINTS = 512  # to which longer ranges are reduced
_OVERVIEW_POINTS = 5000  # to which a history is reduced
_MARGIN = 1.1
_MACHINES_AT_ONCE = 16  # that are asked for at a time, each by its own call
_REMEMBERED = 100_000  # machines


@dataclass(frozen=True, slots=True)
class MachineReadings:
    """The readings of one machine: for each sensor, times in µs since 1970 and values."""

    machine_id: str
    columns: dict[str, Column]

    @property
    def as_of_us(self) -> int:
        """The time of the latest reading in µs since 1970; 0 without readings."""
        return max((int(times[-1]) for times, _ in self.columns.values()), default=0)


class ReadingsClient:
    """Reads from the ingestion service. It caches machine types and the range that each machine's window needs.

    Args:
        ingestion: The ingestion service.
        once: Whether the same readings are usually read once, so that ingestion need not keep them in memory.
    """

    def __init__(self, ingestion: Dependency, *, once: bool = False) -> None:
        self._once = once
        self._ingestion = ingestion
        self._stub = ingestion_pb2_grpc.IngestionServiceStub(ingestion.channel)
        self._query_method = query_method(ingestion.channel)
        self._types: collections.OrderedDict[str, str] = collections.OrderedDict()
        self._sensors: collections.OrderedDict[str, int] = (
            collections.OrderedDict()
        )  # number of sensors, when last seen
        self._needed: collections.OrderedDict[str, int] = collections.OrderedDict()  # readings, if less than _LAST
        self._reach: collections.OrderedDict[str, int] = collections.OrderedDict()  # µs, if _LAST readings are too few

    async def machine_type(self, machine_id: str) -> str:
        """Returns the type of a machine; empty if it is not registered. Raises NotFoundError if it does not exist."""
        machine_type = self._types.get(machine_id)
        if machine_type is not None:
            return machine_type
        request = ingestion_pb2.GetMachineRequest(machine_id=machine_id, omit_sensors=True)
        response = await self._ingestion.unary(self._stub.GetMachine, request)
        machine = response.machine
        _remember(self._sensors, machine_id, machine.sensor_count or len(machine.sensors))
        if machine.machine_type:
            _remember(self._types, machine_id, machine.machine_type)
        return machine.machine_type

    async def machine_types(self, machine_ids: Sequence[str]) -> list[str | BaseException]:
        """Returns the type of each machine, or the error why it is not known."""
        if all(machine_id in self._types for machine_id in machine_ids):
            return [self._types[machine_id] for machine_id in machine_ids]
        gate = asyncio.Semaphore(_MACHINES_AT_ONCE)

        async def one(machine_id: str) -> str:
            async with gate:
                return await self.machine_type(machine_id)

        return await asyncio.gather(*(one(machine_id) for machine_id in machine_ids), return_exceptions=True)

    async def latest(
        self, machine_ids: Sequence[str], spec: FeatureSpec | None, end_us: int = 0
    ) -> dict[str, MachineReadings]:
        """Returns the readings of machines that cover the window of `spec`.

        Args:
            machine_ids: The machines.
            spec: The features whose readings are needed; None for the last readings of all sensors.
            end_us: Only readings before this time in µs since 1970; 0 for no limit.

        Returns:
            The readings by machine id. Machines without readings are missing.

        Raises:
            InvalidArgumentError: The machines have too many sensors, and all of them are needed.
            AurumError: Ingestion did not answer.
        """
        if spec is None:
            self._check_series(machine_ids)
            sensors = max((self._sensors.get(machine_id, 0) for machine_id in machine_ids), default=0)
        else:
            sensors = len(spec.queried)
        at_once = max(1, _SERIES_AT_ONCE // max(1, sensors))
        by_machine: dict[str, MachineReadings] = {}
        for start in range(0, len(machine_ids), at_once):
            part = machine_ids[start : start + at_once]
            if spec is None:
                by_machine |= await self._query(part, None, last=_LAST, end_us=end_us)
            else:
                by_machine |= await self._window(part, spec, end_us)
        return by_machine

    async def newest(self, machine_ids: Sequence[str]) -> dict[str, MachineReadings]:
        """Returns the latest reading of each sensor of machines, by machine id, from the memory of ingestion.

        Machines without readings are missing.

        Raises:
            AurumError: Ingestion did not answer.
        """
        newest: dict[str, MachineReadings] = {}
        request = ingestion_pb2.ListMachinesRequest(machine_ids=machine_ids, page_size=len(machine_ids))
        while machine_ids:
            response = await self._ingestion.unary(self._stub.ListMachines, request)
            for machine in response.machines:
                if not machine.sensors:
                    continue
                columns = {
                    each.sensor: (np.array([each.timestamp_us]), np.array([each.value])) for each in machine.sensors
                }
                newest[machine.machine_id] = MachineReadings(machine.machine_id, columns)
            request.page_token = response.next_page_token
            if not request.page_token:
                break
        return newest

    async def reduced(self, machine_id: str, sensors: Sequence[str], start_us: int) -> MachineReadings:
        """Returns sensors of a machine from a time on, each reduced to a few thousand means. Raises AurumError."""
        request = ingestion_pb2.QueryRequest(
            machine_ids=[machine_id], sensors=sensors, start_us=max(1, start_us), points=_OVERVIEW_POINTS, once=True
        )
        responses = await self._ingestion.stream(self._query_method, request)
        readings = MachineReadings(machine_id, {})
        for series, times, values in decode_columns(itertools.chain.from_iterable(each.series for each in responses)):
            readings.columns[series.sensor] = (times, values)
        return readings

    async def history(self, machine_id: str, spec: FeatureSpec, start_us: int, end_us: int) -> MachineReadings:
        """Returns all readings that a model needs of a machine from a time on and before another. Raises AurumError."""
        by_machine = await self._query([machine_id], spec, start_us=start_us, end_us=end_us)
        return by_machine.get(machine_id) or MachineReadings(machine_id, {})

    def _check_series(self, machine_ids: Sequence[str]) -> None:
        """Raises InvalidArgumentError if all sensors of these machines are too many for one request."""
        series = sum(self._sensors.get(machine_id, 0) for machine_id in machine_ids)
        if len(machine_ids) > 1 and series > _MOST_SERIES:
            error = InvalidArgumentError.for_field(
                "requests",
                f"name {len(machine_ids)} machines without a model that fits, of which all {series} sensors are read; "
                f"at most {_MOST_SERIES} can be at once: ask for fewer machines at a time",
            )
            error.reason = TOO_MANY_SERIES
            raise error

    async def _window(self, machine_ids: Sequence[str], spec: FeatureSpec, end_us: int) -> dict[str, MachineReadings]:
        """Returns the readings of machines that cover the window of `spec`, for as many machines as one query takes."""
        short = [machine_id for machine_id in machine_ids if machine_id not in self._reach]
        last = max((self._needed.get(machine_id, _LAST) for machine_id in short), default=0)
        by_machine = await self._query(short, spec, last=last, end_us=end_us) if short else {}
        if last < _LAST:
            slower = [machine_id for machine_id in short if self._is_short(by_machine.get(machine_id), spec, last)]
            by_machine |= await self._query(slower, spec, last=_LAST, end_us=end_us) if slower else {}
        for machine_id in machine_ids:
            if machine_id in by_machine and machine_id not in self._needed:
                self._learn(by_machine[machine_id], spec)
            reach = self._reach.get(machine_id) or self._missing_reach(by_machine.get(machine_id), spec)
            while reach:
                readings = await self._range(machine_id, spec, reach, end_us)
                by_machine[machine_id] = readings
                _remember(self._reach, machine_id, reach)
                wider = self._missing_reach(readings, spec, reach)
                if not wider or wider <= reach:
                    break
                reach = wider
        return by_machine

    def _is_short(self, readings: MachineReadings | None, spec: FeatureSpec, last: int) -> bool:
        """Whether the last `last` readings do not cover the window, although there may be earlier ones."""
        times, life = _life(readings, spec)
        if len(times) < last or (np.diff(life) < 0).any():
            return False
        return bool(life[-1] - life[0] < spec.step * WINDOW)

    def _learn(self, readings: MachineReadings, spec: FeatureSpec) -> None:
        """Stores the number of readings that the window needs, so that the next query asks for no more."""
        times, life = _life(readings, spec)
        if len(times) >= _LAST:
            within = int((life > life[-1] - spec.step * (WINDOW + 1)).sum())
            if within < len(times):
                _remember(self._needed, readings.machine_id, int(within * _MARGIN) + 8)

    def _missing_reach(self, readings: MachineReadings | None, spec: FeatureSpec, reached: int = 0) -> int | None:
        """Returns the range to read for a whole window, in µs, or None if the readings suffice or there are no more.

        Args:
            readings: What was read so far.
            spec: The features, with the length of the window.
            reached: The range that was read, in µs; 0 if the last _LAST readings were read.
        """
        if readings is None:
            return None
        if spec.axis == TIME:
            wanted = int(spec.step * WINDOW * HOUR_US)
            longest = max((len(values) for _, values in readings.columns.values()), default=0)
            return wanted if not reached and longest >= _LAST else None
        times, life = _life(readings, spec)
        if len(times) < 2 or (not reached and len(times) < _LAST) or (np.diff(life) < 0).any():
            return None  # all readings were read, or they include the start of the run
        covered, needed = float(life[-1] - life[0]), spec.step * WINDOW
        if covered >= needed or covered <= 0 or life[0] <= spec.step:
            return None
        span = int(times[-1] - times[0])
        if reached and span < 0.5 * reached:
            return None  # there are no earlier readings
        return int(span * needed / covered * _MARGIN)

    async def _range(self, machine_id: str, spec: FeatureSpec, reach: int, end_us: int) -> MachineReadings:
        newest = await self._query([machine_id], spec, last=1, end_us=end_us)
        as_of = newest[machine_id].as_of_us if machine_id in newest else 0
        by_machine = await self._query(
            [machine_id], spec, start_us=max(1, as_of - reach), end_us=end_us, points=_POINTS
        )
        return by_machine.get(machine_id) or MachineReadings(machine_id, {})

    async def _query(
        self,
        machine_ids: Sequence[str],
        spec: FeatureSpec | None,
        *,
        last: int = 0,
        start_us: int = 0,
        end_us: int = 0,
        points: int = 0,
    ) -> dict[str, MachineReadings]:
        request = ingestion_pb2.QueryRequest(
            machine_ids=machine_ids,
            sensors=spec.queried if spec else (),
            last=last,
            start_us=start_us,
            end_us=end_us,
            points=points,
            once=self._once,
        )
        by_machine: dict[str, MachineReadings] = {}
        try:
            responses = await self._ingestion.stream(self._query_method, request)
        except InvalidArgumentError as error:
            if error.reason != TOO_MANY_SERIES or len(machine_ids) == 1:
                raise
            for half in (machine_ids[: len(machine_ids) // 2], machine_ids[len(machine_ids) // 2 :]):
                by_machine |= await self._query(half, spec, last=last, start_us=start_us, end_us=end_us, points=points)
            return by_machine
        for series, times, values in decode_columns(itertools.chain.from_iterable(each.series for each in responses)):
            readings = by_machine.setdefault(series.machine_id, MachineReadings(series.machine_id, {}))
            readings.columns[series.sensor] = (times, values)
        return by_machine


def _life(readings: MachineReadings | None, spec: FeatureSpec) -> Column:
    """Returns times and values of the machine's life counter; empty if there is none."""
    nothing = np.empty(0, np.int64), np.empty(0)
    return readings.columns.get(spec.axis, nothing) if readings else nothing


def _remember(memory: "collections.OrderedDict[str, T]", key: str, value: T) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
