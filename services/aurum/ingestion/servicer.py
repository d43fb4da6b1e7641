"""The IngestionService on top of a store."""

import asyncio
import itertools
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator, Sequence
from typing import Any

from aurum.ingestion.downsample import reduce_points
from aurum.ingestion.plant import MachineState, Plant, unknown_machine
from aurum.ingestion.query_answer import QueryAnswer
from aurum.ingestion.room import Coming
from aurum.ingestion.store import Event, MachineRecord, Points, Store
from aurum.ingestion.tail import SeriesTail
from aurum.readings.batch import Batch, decode, machine_id_problem, now_us, parse_request
from aurum.readings.ingest_stream import IngestStreams, Written
from aurum.readings.queried import TOO_MANY_SERIES
from aurum.runtime import metrics
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.logging import set_request_context
from aurum.runtime.rpc_client import TAKEN_UP
from aurum.runtime.tracing import set_span_attributes
from aurum.security.door import as_callers, as_told, may_see_machine, registrant, require_machines, require_subject
from aurum.security.sources import SourceLimits
from aurum.v1 import columns_pb2, ingestion_pb2, ingestion_pb2_grpc

_NAME_LENGTH = 64
_PAGE, _MAX_PAGE = 100, 1000
_PAGE_BYTES = 1_000_000  # bytes of machines or events after which a message is full
_MAX_MACHINES_OF_QUERY = 1000
_MAX_SENSORS_OF_QUERY = 10_000
_MAX_SERIES_OF_QUERY = 20_000  # as many as a batch may have
_MAX_POINTS = 100_000
_MOST_READINGS = 10_000_000  # in one answer
_SENSORS_AT_ONCE = 64  # of a machine, read at once
_READS_AT_ONCE = 8  # reads of the store at a time, over all callers
_MAX_EVENTS = 1000
_EVENT_BYTES = 16_384
_EVENT_OVERHEAD = 300  # bytes of an event besides its content, at most
_DIGITS = 19  # of a time in a page token
_END_OF_TIME = 2**62  # µs
_KIND = re.compile("[a-z][a-z_]{0,31}")


class IngestionServicer(ingestion_pb2_grpc.IngestionServiceServicer):
    def __init__(self, store: Store, plant: Plant, sources: SourceLimits, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._page_bytes = min(_PAGE_BYTES, max_message_bytes // 4)
        self._store = store
        self._plant = plant
        self._sources = sources
        self._streams = IngestStreams(self._accept_streamed)
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)
        self._stopping = False

    def stop(self) -> None:
        """Ends the streams. What they have sent is still stored and acknowledged."""
        self._streams.stop()
        self._stopping = True
        self._plant.wake()

    # Ingest and Write receive serialized requests, see add_ingestion_service

    async def Ingest(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncGenerator[ingestion_pb2.IngestResponse]:
        async for response in self._streams.serve(request_iterator):
            yield response

    async def Write(self, request: Any, context: Any) -> ingestion_pb2.WriteResponse:  # noqa: N802
        written = await (await self._accept(parse_request(request).batch, "batch", "unary", wait=False))
        return ingestion_pb2.WriteResponse(accepted=written.accepted, duplicate=written.duplicate)

    async def Query(  # noqa: N802
        self, request: ingestion_pb2.QueryRequest, context: Any
    ) -> AsyncGenerator[Any]:
        if not 1 <= len(request.machine_ids) <= _MAX_MACHINES_OF_QUERY:
            raise InvalidArgumentError.of("machine_ids", f"must name 1 to {_MAX_MACHINES_OF_QUERY} machines")
        for field in ("points", "last"):
            if getattr(request, field) > _MAX_POINTS:
                raise InvalidArgumentError.of(field, f"must be at most {_MAX_POINTS}")
        if request.start_us < 0 or request.end_us < 0 or 0 < request.end_us <= request.start_us:
            raise InvalidArgumentError.of("end_us", "must be after start_us")
        if len(request.sensors) > _MAX_SENSORS_OF_QUERY:
            raise InvalidArgumentError.of("sensors", f"must name at most {_MAX_SENSORS_OF_QUERY} sensors")
        if len(request.machine_ids) == 1:
            set_request_context(machine_id=request.machine_ids[0])
        require_machines(request.machine_ids)
        states = [await self._state(machine_id) for machine_id in dict.fromkeys(request.machine_ids)]
        answer = QueryAnswer(min(request.max_readings or _MOST_READINGS, _MOST_READINGS), self._max_message_bytes)
        only = set(request.sensors)
        _check_series(
            sum(len(only & state.sensors.keys() if only else state.sensors) for state in states), request.last
        )
        for state in sorted(states, key=lambda each: each.record.machine_id):
            wanted = sorted(only & state.sensors.keys() if only else state.sensors)
            async for sensor, points in self._points(state, wanted, request):
                answer.add(state.record.machine_id, sensor, points)
                if answer.full:
                    yield answer.take()
                    await asyncio.sleep(0)  # lets other tasks run during a long answer
        if (rest := answer.take()) is not None:
            yield rest

    async def RegisterMachine(  # noqa: N802
        self, request: ingestion_pb2.RegisterMachineRequest, context: Any
    ) -> ingestion_pb2.RegisterMachineResponse:
        if problem := machine_id_problem(request.machine_id):
            raise InvalidArgumentError.of("machine_id", problem)
        require_machines([request.machine_id])
        for field, least in (("machine_type", 1), ("site", 0)):
            if not least <= len(getattr(request, field)) <= _NAME_LENGTH:
                raise InvalidArgumentError.of(field, f"must have {least} to {_NAME_LENGTH} characters")
        record = MachineRecord(
            request.machine_id, request.machine_type, request.site, now_us(), request.request_id[:200]
        )
        owner = registrant(request.owner)
        # Shielded: a registration that the store has must become visible even if its caller hangs up
        state = await asyncio.shield(asyncio.ensure_future(self._register(record, owner)))
        return ingestion_pb2.RegisterMachineResponse(machine=as_told(state.message()))

    async def _register(self, record: MachineRecord, owner: str) -> MachineState:
        """Registers a machine.

        Args:
            record: The machine.
            owner: The caller that must own all sources of the machine's readings, if it has sent some; empty for no
                check.

        Raises:
            NotFoundError: If the machine has readings of other owners.
            AlreadyExistsError: If it is registered by another request.
        """
        if owner:
            await self._look_up(record.machine_id)
            if self._plant.unregistered(record.machine_id) and not await self._store.sent_only_by(
                record.machine_id, owner
            ):
                raise unknown_machine(record.machine_id)
        found = await self._store.register(record, self._plant.registered)
        return self._plant.get(found.machine_id)

    async def GetMachine(  # noqa: N802
        self, request: ingestion_pb2.GetMachineRequest, context: Any
    ) -> ingestion_pb2.GetMachineResponse:
        require_machines([request.machine_id])
        state = await self._state(request.machine_id)
        return ingestion_pb2.GetMachineResponse(machine=state.message(sensors=not request.omit_sensors))

    async def ListMachines(  # noqa: N802
        self, request: ingestion_pb2.ListMachinesRequest, context: Any
    ) -> ingestion_pb2.ListMachinesResponse:
        if request.page_size > _MAX_PAGE:
            raise InvalidArgumentError.of("page_size", f"must be at most {_MAX_PAGE}")
        states, token = self._plant.page(
            request.page_token, request.page_size or _PAGE, request.machine_type, request.site, may_see_machine
        )
        response = ingestion_pb2.ListMachinesResponse(next_page_token=token)
        size = 0
        for state in states:
            machine = state.message(sensors=not request.omit_sensors)
            size += machine.ByteSize()
            if response.machines and size > self._page_bytes:
                response.next_page_token = response.machines[-1].machine_id
                break
            response.machines.append(machine)
        return response

    async def RecordEvents(  # noqa: N802
        self, request: ingestion_pb2.RecordEventsRequest, context: Any
    ) -> ingestion_pb2.RecordEventsResponse:
        if len(request.events) > _MAX_EVENTS:
            raise InvalidArgumentError.of("events", f"are {len(request.events)}; {_MAX_EVENTS} are allowed")
        for index, event in enumerate(request.events):
            _check_event(event, f"events[{index}].")
            require_subject(event.machine_id)
        await self._store.record(
            [Event(event.kind, event.machine_id, event.at_us, event.id, event.content) for event in request.events]
        )
        return ingestion_pb2.RecordEventsResponse()

    async def ListEvents(  # noqa: N802
        self, request: ingestion_pb2.ListEventsRequest, context: Any
    ) -> ingestion_pb2.ListEventsResponse:
        require_subject(request.machine_id)
        if request.machine_id:
            await self._state(request.machine_id)
        if request.limit > _MAX_EVENTS:
            raise InvalidArgumentError.of("limit", f"must be at most {_MAX_EVENTS}")
        limit = request.limit or _PAGE
        if request.by_number:
            found = await self._journal(request, limit)
        else:
            end = request.end_us or _END_OF_TIME
            before = _place_of(request.page_token)
            found = await self._store.events(request.kind, request.machine_id, request.start_us, end, limit, before)
        response, size = ingestion_pb2.ListEventsResponse(), 0
        for event in found:
            size += len(event.data) + _EVENT_OVERHEAD
            if response.events and size > self._page_bytes:
                break
            response.events.append(
                ingestion_pb2.Event(
                    kind=event.kind,
                    machine_id=event.machine_id,
                    at_us=event.at_us,
                    id=event.id,
                    content=event.data,
                    number=event.number,
                )
            )
        if found and (len(response.events) < len(found) or len(found) == limit):
            last = response.events[-1]
            response.next_page_token = str(last.number) if request.by_number else f"{last.at_us}/{last.id}"
        return response

    async def _journal(self, request: ingestion_pb2.ListEventsRequest, limit: int) -> list[Event]:
        if request.machine_id:
            raise InvalidArgumentError.of("by_number", "is for events of the plant as a whole, without machine_id")
        before = _number_of(request.page_token) if request.page_token else _END_OF_TIME
        return await self._store.journal(request.kind, request.after_number, before, limit)

    async def Watch(  # noqa: N802
        self, request: ingestion_pb2.WatchRequest, context: Any
    ) -> AsyncGenerator[ingestion_pb2.WatchResponse]:
        interval = max(100, request.interval_ms or 500) / 1000
        only = set(request.machine_ids)
        require_machines(only)
        seen = -1
        await context.send_initial_metadata(TAKEN_UP)
        with metrics.ingestion_watchers.track_inprogress():
            while not self._stopping:
                version = self._plant.version
                # Only the latest state is sent, so a slow client costs no memory.
                states = [
                    state
                    for state in self._plant.changed_since(seen)
                    if (not only or state.record.machine_id in only) and may_see_machine(state.record.machine_id)
                ]
                if seen < 0 and not states:
                    yield ingestion_pb2.WatchResponse()  # tells the client that no machine is known
                seen = version
                for machines in _pages((state.message() for state in states), self._page_bytes):
                    yield ingestion_pb2.WatchResponse(machines=machines)
                await asyncio.sleep(interval)
                await self._plant.wait_for_change(seen)

    async def _accept_streamed(self, request: columns_pb2.BatchRequest, position: int) -> Awaitable[Written]:
        return await self._accept(request.batch, f"requests[{position}].batch", "stream", wait=True)

    async def _accept(self, data: bytes, field: str, transport: str, *, wait: bool) -> Awaitable[Written]:
        """Checks and queues a batch. The returned awaitable completes when the batch is durable and visible."""
        started = time.perf_counter()
        try:
            batch = decode(data, field=field)
            set_span_attributes({"aurum.source_id": batch.source_id, "aurum.sequence": batch.sequence})
            batch = as_callers(batch)
            await self._sources.admit(batch, wait=wait)
            coming = self._plant.reserve(batch)
        except AurumError as error:
            metrics.track_ingestion_error(error.reason, transport)
            raise
        try:
            writing = await self._store.append(batch, wait=wait)
        except BaseException as error:
            self._plant.release(coming)
            if isinstance(error, AurumError):
                metrics.track_ingestion_error(error.reason, transport)
            raise
        # Shielded: the batch will be durable, so it must become visible even if its caller is gone
        return asyncio.shield(asyncio.ensure_future(self._finish(batch, coming, writing, transport, started)))

    async def _finish(
        self, batch: Batch, coming: Coming, writing: Awaitable[Written], transport: str, started: float
    ) -> Written:
        try:
            written = await writing
            if written.accepted:
                self._plant.apply(batch, now_us(), written.rank)
        except AurumError as error:
            metrics.track_ingestion_error(error.reason, transport)
            raise
        finally:
            self._plant.release(coming)
        metrics.track_ingestion(written.accepted, time.perf_counter() - started, transport, written.duplicate)
        return written

    async def _state(self, machine_id: str) -> MachineState:
        """Returns the state of a machine. Raises NotFoundError."""
        await self._look_up(machine_id)
        return self._plant.get(machine_id)

    async def _look_up(self, machine_id: str) -> None:
        """Loads a machine that is unknown here, if other writers have stored it."""
        if self._store.shared and not self._plant.knows(machine_id):
            found = await self._store.find(machine_id)
            if found is not None:
                self._plant.observe(found)

    async def _points(
        self, state: MachineState, sensors: Sequence[str], request: ingestion_pb2.QueryRequest
    ) -> AsyncGenerator[tuple[str, Points]]:
        """Yields the requested readings of some sensors of a machine, in their order.

        They come from memory where possible, and otherwise from the store, a few sensors at a time.
        """
        start = request.start_us or state.first_seen_us
        newest = max(state.last_seen_us, now_us()) if self._store.shared else state.last_seen_us
        end = request.end_us or newest + 1
        at = 0
        while at < len(sensors) and start < end:
            found: dict[str, Points] = {}
            some = sensors[at : at + _SENSORS_AT_ONCE]
            for sensor in some:
                held = self._plant.held(state, sensor, start, end, request.last)
                if held is not None:
                    found[sensor] = reduce_points(*held, start, end, request.points)
            if missing := [sensor for sensor in some if sensor not in found]:
                found.update(zip(missing, await self._stored(state, missing, start, end, request), strict=False))
            for sensor in itertools.takewhile(found.__contains__, some):
                yield sensor, found.pop(sensor)
                at += 1

    async def _stored(
        self, state: MachineState, sensors: Sequence[str], start: int, end: int, request: ingestion_pb2.QueryRequest
    ) -> list[Points]:
        """Returns the readings of the first of some sensors from the store: of at least one.

        Readings of the present are kept in the tails, so that the next such query is answered from memory.
        """
        present = end > state.last_seen_us
        tails = {sensor: tail for sensor in sensors if present and (tail := self._plant.tail(state, sensor))}
        late = {sensor: tail.late for sensor, tail in tails.items()}
        most = 0 if request.last else self._room(state, tails.get(sensors[0]), start)
        if most:
            alike = [*itertools.takewhile(lambda each: self._room(state, tails.get(each), start) == most, sensors)]
            found: list[Points] = []
            for sensor, points in zip(alike, await self._read(state, alike, start, end, last=most), strict=False):
                _keep(tails[sensor], points, late[sensor], start, most)
                if len(points.timestamps) == most:
                    break  # there are more, which are read without the tail
                found.append(reduce_points(points.timestamps, points.values, start, end, request.points))
            if found:
                return found
            sensors = sensors[:1]
        found = await self._read(state, sensors, start, end, points=request.points, last=request.last)
        for sensor, points in zip(sensors, found, strict=False):
            if points.counts is None and sensor in tails:
                _keep(tails[sensor], points, late[sensor], start, request.last)
        return found

    def _room(self, state: MachineState, tail: SeriesTail | None, start: int) -> int:
        """Returns how many readings a tail holds if there is room in it for all from `start` on, else 0."""
        return tail.capacity if tail is not None and self._plant.make_room(state, tail, start) else 0

    async def _read(
        self, state: MachineState, sensors: Sequence[str], start: int, end: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        async with self._reading:
            machine_id = state.record.machine_id
            return await self._store.read_several(machine_id, sensors, start, end, points=points, last=last)


def _check_series(series: int, last: int) -> None:
    """Raises InvalidArgumentError, before anything is read, if an answer would be too large."""
    most = min(_MAX_SERIES_OF_QUERY, _MOST_READINGS // max(1, last))
    if series > most:
        error = InvalidArgumentError.of(
            "machine_ids",
            f"have {series} series; at most {most} can be asked for at once{f' with last={last}' if last else ''}; "
            "name sensors, or fewer machines",
        )
        error.reason = TOO_MANY_SERIES
        raise error


def _pages(machines: Iterable[ingestion_pb2.Machine], most: int) -> Iterator[list[ingestion_pb2.Machine]]:
    """Splits machines into parts of about `most` bytes."""
    part: list[ingestion_pb2.Machine] = []
    size = 0
    for machine in machines:
        nbytes = machine.ByteSize()
        if part and size + nbytes > most:
            yield part
            part, size = [], 0
        part.append(machine)
        size += nbytes
    if part:
        yield part


def _place_of(page_token: str) -> tuple[int, str] | None:
    """Parses a page token: time and id of the last event of the previous page. Raises InvalidArgumentError."""
    if not page_token:
        return None
    at_us, slash, id_ = page_token.partition("/")
    return _number_of(at_us if slash else ""), id_


def _number_of(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise InvalidArgumentError.of("page_token", "is none that this service gave out")
    return int(text)


def _keep(tail: SeriesTail, points: Points, late: int, start: int, last: int) -> None:
    """Keeps what was read in the tail.

    `last` is the number of readings that were asked for; 0 for all from `start` on.
    """
    whole = not last or len(points.timestamps) < last
    tail.prepend(points.timestamps, points.values, late, start if whole else int(points.timestamps[0]))


def _check_event(event: ingestion_pb2.Event, prefix: str) -> None:
    if not _KIND.fullmatch(event.kind):
        raise InvalidArgumentError.of(f"{prefix}kind", f"{event.kind[:40]!r} is no kind; use a-z and _, at most 32")
    if event.machine_id and (problem := machine_id_problem(event.machine_id)):
        raise InvalidArgumentError.of(f"{prefix}machine_id", problem)
    if not 0 <= event.at_us < _END_OF_TIME:
        raise InvalidArgumentError.of(f"{prefix}at_us", "is no time")
    if len(event.id) > _NAME_LENGTH:
        raise InvalidArgumentError.of(f"{prefix}id", f"must have at most {_NAME_LENGTH} characters")
    if len(event.content) > _EVENT_BYTES:
        raise InvalidArgumentError.of(f"{prefix}content", f"must have at most {_EVENT_BYTES} bytes")
