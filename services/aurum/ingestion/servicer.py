"""Implements the gRPC IngestionService with a store and the state of the machines."""

import asyncio
import contextlib
import itertools
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any

from aurum.ingestion import metrics
from aurum.ingestion.downsample import reduce_points
from aurum.ingestion.follow_feed import FollowFeed
from aurum.ingestion.follower import Follower
from aurum.ingestion.machine_state import MachineStates, unknown_machine
from aurum.ingestion.machine_view import MachineState
from aurum.ingestion.meter_answer import check_integration, integrate_meters
from aurum.ingestion.meter_window import LimitedReads
from aurum.ingestion.paging import pages
from aurum.ingestion.plant_limits import Reservation
from aurum.ingestion.published_predictions import Published, PublishedPredictions, prediction_problem
from aurum.ingestion.query_answer import QueryAnswer
from aurum.ingestion.series_cache import CachedSeries
from aurum.ingestion.store import Event, MachineRecord, Points, Store
from aurum.readings.batch import MAX_SERIES, Batch, machine_id_problem, now_us
from aurum.readings.decoding import decode_batch
from aurum.readings.limits import MAX_EVENTS, MAX_PAGE
from aurum.readings.metrics import track_ingestion, track_ingestion_error
from aurum.readings.series_numbers import SeriesNumbers
from aurum.readings.transport.ingest_stream import BatchServicer, Written
from aurum.readings.transport.query_columns import TOO_MANY_SERIES
from aurum.readings.transport.sending_gateway import gateway_in, sending_gateway
from aurum.runtime.errors import AurumError, InvalidArgumentError
from aurum.runtime.grpc.client import TAKEN_UP
from aurum.runtime.telemetry.logging import set_request_context
from aurum.runtime.telemetry.tracing import set_span_attributes
from aurum.security.rpc_authorizer import (
    machine_filter,
    may_see_machine,
    require_machines,
    require_subject,
    required_owner,
    with_caller_as_owner,
    without_hidden_readings,
)
from aurum.security.source_limits import SourceLimits
from aurum.v1 import columns_pb2, ingestion_pb2

_NAME_LENGTH = 64
_PAGE = 100  # machines or events in an answer by default
_WATCHED_A_SECOND, _SLOWEST_WATCH = 10_000, 1.0  # machines sent to a watcher; seconds between two updates of many
_PAGE_BYTES = 1_000_000  # bytes of machines or events after which a message is full
_MAX_MACHINES_OF_QUERY = 1000
_MAX_SENSORS_OF_QUERY = 10_000
_MAX_POINTS = 100_000
_MOST_READINGS = 10_000_000  # in one answer
_SENSORS_AT_ONCE = 64  # of a machine, read at once
_READS_AT_ONCE = 8  # reads of the store at a time, over all callers
_EVENT_BYTES = 16_384
_EVENT_ID_LENGTH = 256  # an alarm's has a machine id, the name of a rule and what happened
_EVENT_OVERHEAD = 300  # bytes of an event besides its content, at most
_DIGITS = 19  # of a time in a page token
_END_OF_TIME = 2**62  # µs
_DEFAULT_FEED_BYTES = 1_000_000
_KIND = re.compile("[a-z][a-z_]{0,31}")


class IngestionServicer(BatchServicer):
    """Implements the RPCs of the IngestionService.

    Args:
        store: Where readings and events are stored.
        machines: The state of each machine.
        sources: The rate limits of sources.
        max_message_bytes: The largest message that a client accepts.
        feed: The latest readings for followers; by default a small one.
    """

    def __init__(
        self,
        store: Store,
        machines: MachineStates,
        sources: SourceLimits,
        max_message_bytes: int,
        feed: FollowFeed | None = None,
    ) -> None:
        super().__init__()
        self._feed = FollowFeed(_DEFAULT_FEED_BYTES) if feed is None else feed
        self._predictions = PublishedPredictions()
        self._max_message_bytes = max_message_bytes
        self._page_bytes = min(_PAGE_BYTES, max_message_bytes // 4)
        self._store = store
        self._machines = machines
        self._sources = sources
        self._reading = asyncio.Semaphore(_READS_AT_ONCE)
        self._stopping = False

    def stop(self) -> None:
        """Ends the streams. What they have sent is still stored and acknowledged."""
        super().stop()
        self._stopping = True
        self._machines.wake()
        self._feed.wake()

    async def Ingest(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncGenerator[ingestion_pb2.IngestResponse]:
        """Accepts a stream of batches. One that names its gateway tells from where the readings of machines come."""
        gateway = gateway_in(context.invocation_metadata())
        sending_gateway.set(gateway)  # for this call, which has a context of its own
        with self._feed.gateways.connected(gateway):
            async with contextlib.aclosing(super().Ingest(request_iterator, context)) as responses:
                async for response in responses:
                    yield response

    async def Query(  # noqa: N802
        self, request: ingestion_pb2.QueryRequest, context: Any
    ) -> AsyncGenerator[Any]:
        """Returns readings of machines, in messages of limited size."""
        _check_query(request)
        if len(request.machine_ids) == 1:
            set_request_context(machine_id=request.machine_ids[0])
        require_machines(request.machine_ids)
        states = [await self._find_state(machine_id) for machine_id in dict.fromkeys(request.machine_ids)]
        answer = QueryAnswer(min(request.max_readings or _MOST_READINGS, _MOST_READINGS), self._max_message_bytes)
        only = set(request.sensors)
        _check_series(sum(state.count_sensors(only) for state in states), request.last)
        for state in sorted(states, key=lambda each: each.record.machine_id):
            async for sensor, points in self._read_points(state, state.sensor_names(only), request):
                answer.add_series(state.record.machine_id, sensor, points)
                if answer.full:
                    yield answer.take_message()
                    await asyncio.sleep(0)  # gives other tasks a turn during a long answer
        if (rest := answer.take_message()) is not None:
            yield rest

    async def Integrate(  # noqa: N802
        self, request: ingestion_pb2.IntegrateRequest, context: Any
    ) -> AsyncGenerator[Any]:
        """Returns what meters measured, from all of their readings, in messages of limited size."""
        check_integration(request)
        require_machines(request.machine_ids)
        sensors = {meter.sensor for meter in request.meters}
        metered: list[tuple[str, int]] = []
        for machine_id in sorted(set(request.machine_ids)):
            present = (await self._find_state(machine_id)).sensor_names(sensors)
            metered += [(machine_id, place) for place, each in enumerate(request.meters) if each.sensor in present]
        yield columns_pb2.IntegratedResponse()  # tells that the work has begun, which may take long
        reads = LimitedReads(self._store, self._reading)
        async with contextlib.aclosing(integrate_meters(reads, metered, request)) as messages:
            async for message in messages:
                yield message

    async def RegisterMachine(  # noqa: N802
        self, request: ingestion_pb2.RegisterMachineRequest, context: Any
    ) -> ingestion_pb2.RegisterMachineResponse:
        """Registers a machine. A repeated request with the same id and content succeeds."""
        if problem := machine_id_problem(request.machine_id):
            raise InvalidArgumentError.for_field("machine_id", problem)
        require_machines([request.machine_id])
        for field, least in (("machine_type", 1), ("site", 0)):
            if not least <= len(getattr(request, field)) <= _NAME_LENGTH:
                raise InvalidArgumentError.for_field(field, f"must have {least} to {_NAME_LENGTH} characters")
        record = MachineRecord(
            request.machine_id, request.machine_type, request.site, now_us(), request.request_id[:200]
        )
        owner = required_owner(request.owner)
        # Shielded: a registration that the store has must become visible even if its caller hangs up
        state = await asyncio.shield(asyncio.ensure_future(self._register(record, owner)))
        return ingestion_pb2.RegisterMachineResponse(machine=without_hidden_readings(state.message()))

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
            await self._load_if_unknown(record.machine_id)
            if self._machines.is_unregistered(record.machine_id) and not await self._store.sent_only_by(
                record.machine_id, owner
            ):
                raise unknown_machine(record.machine_id)
        registered = await self._store.register(record, self._machines.apply_registration)
        return self._machines.get(registered.machine_id)

    async def GetMachine(  # noqa: N802
        self, request: ingestion_pb2.GetMachineRequest, context: Any
    ) -> ingestion_pb2.GetMachineResponse:
        """Returns the state of a machine."""
        require_machines([request.machine_id])
        state = await self._find_state(request.machine_id)
        return ingestion_pb2.GetMachineResponse(machine=state.message(sensors=not request.omit_sensors))

    async def ListMachines(  # noqa: N802
        self, request: ingestion_pb2.ListMachinesRequest, context: Any
    ) -> ingestion_pb2.ListMachinesResponse:
        """Returns a page of the machines that the caller may see, ordered by id."""
        if request.page_size > MAX_PAGE:
            raise InvalidArgumentError.for_field("page_size", f"must be at most {MAX_PAGE}")
        only = await self._known_of(request.machine_ids)
        states, token = self._machines.list_page(
            request.page_token,
            request.page_size or _PAGE,
            request.machine_type,
            request.site,
            may_see_machine,
            only=only,
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

    async def _known_of(self, machine_ids: Sequence[str]) -> Sequence[str] | None:
        """Returns those of the requested machines that are known, ordered by id; None if all machines are requested."""
        if not machine_ids:
            return None
        if len(machine_ids) > MAX_PAGE:
            raise InvalidArgumentError.for_field("machine_ids", f"are {len(machine_ids)}; {MAX_PAGE} are allowed")
        require_machines(machine_ids)
        for machine_id in machine_ids:
            await self._load_if_unknown(machine_id)
        return sorted({each for each in machine_ids if self._machines.is_known(each)})

    async def RecordEvents(  # noqa: N802
        self, request: ingestion_pb2.RecordEventsRequest, context: Any
    ) -> ingestion_pb2.RecordEventsResponse:
        """Stores events."""
        if len(request.events) > MAX_EVENTS:
            raise InvalidArgumentError.for_field("events", f"are {len(request.events)}; {MAX_EVENTS} are allowed")
        for index, event in enumerate(request.events):
            _check_event(event, f"events[{index}].")
            require_subject(event.machine_id)
        await self._store.record_events(
            [Event(event.kind, event.machine_id, event.at_us, event.id, event.content) for event in request.events]
        )
        return ingestion_pb2.RecordEventsResponse()

    async def ListEvents(  # noqa: N802
        self, request: ingestion_pb2.ListEventsRequest, context: Any
    ) -> ingestion_pb2.ListEventsResponse:
        """Returns a page of events of a machine or of the whole plant."""
        require_subject(request.machine_id)
        if request.machine_id:
            await self._find_state(request.machine_id)
        if request.limit > MAX_EVENTS:
            raise InvalidArgumentError.for_field("limit", f"must be at most {MAX_EVENTS}")
        limit = request.limit or _PAGE
        if request.by_number:
            events = await self._list_journal(request, limit)
        else:
            events = await self._list_by_time(request, limit)
        response, size = ingestion_pb2.ListEventsResponse(), 0
        for event in events:
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
        if events and (len(response.events) < len(events) or len(events) == limit):
            last = response.events[-1]
            response.next_page_token = str(last.number) if request.by_number else f"{last.at_us}/{last.id}"
        return response

    async def _list_by_time(self, request: ingestion_pb2.ListEventsRequest, limit: int) -> list[Event]:
        """Returns events in a range of time, all of a kind or those that concern a machine."""
        end = request.end_us or _END_OF_TIME
        before = _parse_event_token(request.page_token)
        if not request.about_machine:
            return await self._store.events(request.kind, request.machine_id, request.start_us, end, limit, before)
        if request.machine_id:
            raise InvalidArgumentError.for_field(
                "about_machine", "is only for events of the whole plant; leave machine_id empty"
            )
        return await self._store.events_about(request.kind, request.about_machine, request.start_us, end, limit, before)

    async def _list_journal(self, request: ingestion_pb2.ListEventsRequest, limit: int) -> list[Event]:
        """Returns events of the whole plant in the order of their numbers."""
        if request.about_machine:
            raise InvalidArgumentError.for_field("about_machine", "cannot be combined with by_number")
        if request.machine_id:
            raise InvalidArgumentError.for_field(
                "by_number", "is only for events of the whole plant; leave machine_id empty"
            )
        before = _parse_token_number(request.page_token) if request.page_token else _END_OF_TIME
        return await self._store.journal(request.kind, request.after_number, before, limit)

    async def Watch(  # noqa: N802
        self, request: ingestion_pb2.WatchRequest, context: Any
    ) -> AsyncGenerator[Any]:
        """Sends all machines, then those that change, at most once per interval. See `watch_interval`."""
        only = set(request.machine_ids)
        require_machines(only)
        seen, seen_predictions = -1, 0
        await context.send_initial_metadata(TAKEN_UP)
        with metrics.ingestion_watchers.track_inprogress():
            while not self._stopping:
                version = self._machines.version
                # Only the latest state is sent, so a slow client costs no memory.
                states = [
                    state
                    for state in self._machines.changed_since(seen)
                    if (not only or state.record.machine_id in only) and may_see_machine(state.record.machine_id)
                ]
                if seen < 0 and not states:
                    yield ingestion_pb2.WatchResponse()  # lets the client know that there are no machines
                seen = version
                for machines in pages(self._machines.encoded(states), len, self._page_bytes):
                    yield columns_pb2.WatchedMachines(machines=machines)
                if request.predictions:
                    after, seen_predictions = seen_predictions, self._predictions.version
                    published = self._published_since(after, only)
                    for page in pages(published, lambda each: len(each.data), self._page_bytes):
                        yield columns_pb2.WatchedMachines(
                            predictions=[each.data for each in page], published_us=[each.published_us for each in page]
                        )
                await asyncio.sleep(watch_interval(request.interval_ms, len(only) or self._machines.count))
                if not self._stopping and (not request.predictions or self._predictions.version == seen_predictions):
                    await self._machines.wait_for_change(seen)

    def _published_since(self, version: int, only: set[str]) -> list[Published]:
        """Returns the predictions after a version that the caller may see. only: The machines; all if empty."""
        return [
            each
            for each in self._predictions.changed_since(version)
            if (not only or each.machine_id in only) and may_see_machine(each.machine_id)
        ]

    async def Follow(  # noqa: N802
        self, request: ingestion_pb2.FollowRequest, context: Any
    ) -> AsyncGenerator[Any]:
        """Sends the machines of a share, then new readings as they become durable."""
        follower = Follower(self._feed, request.members, request.member, request.position, self._page_bytes)
        await context.send_initial_metadata(TAKEN_UP)
        interval = max(50, request.interval_ms or 200) / 1000
        heartbeat = max(100, request.heartbeat_ms) / 1000 if request.heartbeat_ms else None
        with metrics.ingestion_followers.track_inprogress():
            async for response in follower.responses(interval, machine_filter, lambda: self._stopping, heartbeat):
                yield response

    async def PublishPredictions(  # noqa: N802
        self, request: ingestion_pb2.PublishPredictionsRequest, context: Any
    ) -> ingestion_pb2.PublishPredictionsResponse:
        """Keeps the latest prediction of each machine for those who watch."""
        predictions = request.predictions
        if len(predictions) > MAX_EVENTS:
            raise InvalidArgumentError.for_field("predictions", f"are {len(predictions)}; {MAX_EVENTS} are allowed")
        for index, prediction in enumerate(predictions):
            if problem := prediction_problem(prediction):
                field, text = problem
                raise InvalidArgumentError.for_field(f"predictions[{index}].{field}", text)
        require_machines(prediction.machine_id for prediction in predictions)
        now = now_us()
        for prediction in predictions:
            if not self._machines.is_known(prediction.machine_id):
                await self._load_if_unknown(prediction.machine_id)
            if self._machines.is_known(prediction.machine_id):
                self._predictions.publish(prediction, now)
            else:
                metrics.ingestion_predictions_ignored_total.labels("unknown").inc()
        self._machines.wake()  # those who watch wait there
        return ingestion_pb2.PublishPredictionsResponse()

    async def _accept(
        self, data: bytes, field: str, transport: str, numbers: SeriesNumbers, *, wait: bool
    ) -> Awaitable[Written]:
        """Checks and queues a batch. The returned awaitable completes when the batch is durable and visible."""
        started = time.perf_counter()
        try:
            batch = await decode_batch(data, field, numbers)
            del data  # another copy is made for the owner
            set_span_attributes({"aurum.source_id": batch.source_id, "aurum.sequence": batch.sequence})
            batch = with_caller_as_owner(batch)
            await self._sources.admit(batch, wait=wait)
            reservation = self._machines.reserve(batch)
        except AurumError as error:
            track_ingestion_error(error.reason, transport)
            raise
        try:
            writing = await self._store.append_batch(batch, wait=wait)
        except BaseException as error:
            self._machines.release(reservation)
            if isinstance(error, AurumError):
                track_ingestion_error(error.reason, transport)
            raise
        # Shielded: the batch will be durable, so it must become visible even if its caller is gone
        return asyncio.shield(
            asyncio.ensure_future(self._apply_when_durable(batch, reservation, writing, transport, started))
        )

    async def _apply_when_durable(
        self, batch: Batch, reservation: Reservation, writing: Awaitable[Written], transport: str, started: float
    ) -> Written:
        """Waits until a batch is durable, applies it to the machines, and releases its reservation."""
        try:
            written = await writing
            if written.accepted:
                self._machines.apply_batch(batch, now_us(), written.rank)
                # After the batch can be queried, so that a query after the start of a stream completes the stream
                self._feed.append_batch(batch)
                self._feed.gateways.note_batch(batch.keys, sending_gateway.get())
        except AurumError as error:
            track_ingestion_error(error.reason, transport)
            raise
        finally:
            self._machines.release(reservation)
        track_ingestion(written.accepted, time.perf_counter() - started, transport, written.duplicate)
        return written

    async def _find_state(self, machine_id: str) -> MachineState:
        """Returns the state of a machine. Raises NotFoundError."""
        await self._load_if_unknown(machine_id)
        return self._machines.get(machine_id)

    async def _load_if_unknown(self, machine_id: str) -> None:
        """Loads a machine that is unknown here, if other writers have stored it."""
        if self._store.shared and not self._machines.is_known(machine_id):
            change = await self._store.find_machine(machine_id)
            if change is not None:
                self._machines.apply_change(change)

    async def _read_points(
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
            points_by_sensor: dict[str, Points] = {}
            some = sensors[at : at + _SENSORS_AT_ONCE]
            for sensor in some:
                held = self._machines.cached_readings(state, sensor, start, end, request.last, once=request.once)
                if held is not None:
                    points_by_sensor[sensor] = reduce_points(*held, start, end, request.points)
            if missing := [sensor for sensor in some if sensor not in points_by_sensor]:
                stored = await self._read_stored(state, missing, start, end, request)
                points_by_sensor.update(zip(missing, stored, strict=False))
            for sensor in itertools.takewhile(points_by_sensor.__contains__, some):
                yield sensor, points_by_sensor.pop(sensor)
                at += 1

    async def _read_stored(
        self, state: MachineState, sensors: Sequence[str], start: int, end: int, request: ingestion_pb2.QueryRequest
    ) -> list[Points]:
        """Reads the first of some series from the store: at least one.

        Readings up to the present are kept in the tails, so that the next such query is answered from memory.
        """
        is_present = end > state.last_seen_us
        keeps = is_present and not request.once
        tails = {sensor: tail for sensor in sensors if keeps and (tail := self._machines.tail(state, sensor))}
        late = {sensor: tail.late for sensor, tail in tails.items()}
        most = 0 if request.last else self._extended_capacity(state, tails.get(sensors[0]), start)
        if most:
            alike = [
                *itertools.takewhile(
                    lambda each: self._extended_capacity(state, tails.get(each), start) == most, sensors
                )
            ]
            answer: list[Points] = []
            stored = await self._read_from_store(state, alike, start, end, last=most)
            for sensor, points in zip(alike, stored, strict=False):
                _extend_tail(tails[sensor], points, late[sensor], start, most)
                if len(points.timestamps) == most:
                    break  # there are more, which are read without the tail
                answer.append(reduce_points(points.timestamps, points.values, start, end, request.points))
            if answer:
                return answer
            sensors = sensors[:1]
        answer = await self._read_from_store(state, sensors, start, end, points=request.points, last=request.last)
        for sensor, points in zip(sensors, answer, strict=False):
            if points.counts is None and sensor in tails:
                _extend_tail(tails[sensor], points, late[sensor], start, request.last)
        return answer

    def _extended_capacity(self, state: MachineState, tail: CachedSeries | None, start: int) -> int:
        """Enlarges a tail for all readings from `start` on. Returns its capacity, or 0 if there is no room for them."""
        return tail.capacity if tail is not None and self._machines.extend_tail(state, tail, start) else 0

    async def _read_from_store(
        self, state: MachineState, sensors: Sequence[str], start: int, end: int, *, points: int = 0, last: int = 0
    ) -> list[Points]:
        """Reads the first of some series from the store. The number of concurrent reads is limited."""
        async with self._reading:
            machine_id = state.record.machine_id
            return await self._store.read_several(machine_id, sensors, start, end, points=points, last=last)


def watch_interval(requested_ms: int, machines: int) -> float:
    """Returns the seconds between two updates of a watcher, which are more for many machines, up to a second.

    Args:
        requested_ms: The interval in ms that the watcher asks for; 0 for the default.
        machines: The number of machines that it watches.
    """
    return max(max(100, requested_ms or 500) / 1000, min(_SLOWEST_WATCH, machines / _WATCHED_A_SECOND))


def _check_query(request: ingestion_pb2.QueryRequest) -> None:
    """Raises InvalidArgumentError if a field of a query is out of range."""
    if not 1 <= len(request.machine_ids) <= _MAX_MACHINES_OF_QUERY:
        raise InvalidArgumentError.for_field("machine_ids", f"must name 1 to {_MAX_MACHINES_OF_QUERY} machines")
    for field in ("points", "last"):
        if getattr(request, field) > _MAX_POINTS:
            raise InvalidArgumentError.for_field(field, f"must be at most {_MAX_POINTS}")
    if request.start_us < 0 or request.end_us < 0 or 0 < request.end_us <= request.start_us:
        raise InvalidArgumentError.for_field("end_us", "must be after start_us")
    if len(request.sensors) > _MAX_SENSORS_OF_QUERY:
        raise InvalidArgumentError.for_field("sensors", f"must name at most {_MAX_SENSORS_OF_QUERY} sensors")


def _check_series(series: int, last: int) -> None:
    """Raises InvalidArgumentError, before anything is read, if an answer would be too large."""
    most = min(MAX_SERIES, _MOST_READINGS // max(1, last))
    if series > most:
        error = InvalidArgumentError.for_field(
            "machine_ids",
            f"have {series} series; at most {most} are allowed in one query{f' with last={last}' if last else ''}; "
            "name sensors, or fewer machines",
        )
        error.reason = TOO_MANY_SERIES
        raise error


def _parse_event_token(page_token: str) -> tuple[int, str] | None:
    """Returns the time and id of the last event of the previous page; None for the first page.

    Raises:
        InvalidArgumentError: The token is invalid.
    """
    if not page_token:
        return None
    at_us, slash, id_ = page_token.partition("/")
    return _parse_token_number(at_us if slash else ""), id_


def _parse_token_number(text: str) -> int:
    """Returns the number in a page token. Raises InvalidArgumentError."""
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise InvalidArgumentError.for_field("page_token", "was not issued by this service")
    return int(text)


def _extend_tail(tail: CachedSeries, points: Points, late: int, start: int, last: int) -> None:
    """Adds what was read from the store to the beginning of a tail.

    Args:
        tail: The tail.
        points: What was read.
        late: The value of `tail.late` before the store was asked.
        start: The time from which on readings were asked for.
        last: The number of readings that were asked for; 0 for all from `start` on.
    """
    whole = not last or len(points.timestamps) < last
    tail.prepend_readings(points.timestamps, points.values, late, start if whole else int(points.timestamps[0]))


def _check_event(event: ingestion_pb2.Event, prefix: str) -> None:
    """Raises InvalidArgumentError if an event is invalid. prefix: where it is in the request."""
    if not _KIND.fullmatch(event.kind):
        raise InvalidArgumentError.for_field(
            f"{prefix}kind", f"{event.kind[:40]!r} is not a valid kind; use at most 32 of a-z and _"
        )
    if event.machine_id and (problem := machine_id_problem(event.machine_id)):
        raise InvalidArgumentError.for_field(f"{prefix}machine_id", problem)
    if not 0 <= event.at_us < _END_OF_TIME:
        raise InvalidArgumentError.for_field(f"{prefix}at_us", "is not a valid time")
    if len(event.id) > _EVENT_ID_LENGTH:
        raise InvalidArgumentError.for_field(f"{prefix}id", f"must have at most {_EVENT_ID_LENGTH} characters")
    if len(event.content) > _EVENT_BYTES:
        raise InvalidArgumentError.for_field(f"{prefix}content", f"must have at most {_EVENT_BYTES} bytes")
