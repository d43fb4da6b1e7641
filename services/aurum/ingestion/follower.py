"""One Follow stream: which readings and machines it contains, and where it is in the feed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from aurum.ingestion import metrics
from aurum.ingestion.follow_feed import FollowFeed
from aurum.ingestion.gateways import GatewayState
from aurum.ingestion.paging import pages
from aurum.ingestion.reading_ring import READING_BYTES, Numbers
from aurum.ingestion.store import MachineRecord
from aurum.runtime.errors import InvalidArgumentError
from aurum.v1 import columns_pb2, ingestion_pb2

_MAX_MEMBERS = 1000
_MEMBER_LENGTH = 200
_AT_ONCE = 65_536  # readings of the feed that are filtered without a pause
_DEFINITION_BYTES = 24  # of the definition of a series besides its names, at most

Flags = npt.NDArray[np.bool_]
MachineFilter = Callable[[str], bool]


def check_share(members: Sequence[str], member: str) -> None:
    """Checks a share of the machines.

    Args:
        members: The names of those who share the machines; empty for all machines.
        member: The name of the member whose machines are meant.

    Raises:
        InvalidArgumentError: There are too many members, a name is too long, or the member is none of them.
    """
    if len(members) > _MAX_MEMBERS:
        raise InvalidArgumentError.for_field("members", f"are {len(members)}; at most {_MAX_MEMBERS} are allowed")
    for index, name in enumerate(members):
        if not 1 <= len(name) <= _MEMBER_LENGTH:
            raise InvalidArgumentError.for_field(f"members[{index}]", f"must have 1 to {_MEMBER_LENGTH} characters")
    if (member or members) and member not in members:
        raise InvalidArgumentError.for_field("member", f"{member[:_MEMBER_LENGTH]!r} is none of the members")


class Follower:
    """The position and the filters of one stream.

    Attributes:
        position: The position of the next reading.
        gap: Whether readings before it may be missing, which the next response must say.
    """

    def __init__(self, feed: FollowFeed, members: Sequence[str], member: str, position: str, max_bytes: int) -> None:
        """Begins a stream.

        Args:
            feed: The feed.
            members: The names of those who share the machines; empty for all machines.
            member: The member whose machines the stream contains.
            position: Where to continue; empty for the present.
            max_bytes: The size after which a response is full.

        Raises:
            InvalidArgumentError: The share or the position is invalid.
        """
        check_share(members, member)
        self._feed = feed
        self._division = feed.machines.division(members) if members else None
        self._member = self._division.members.index(member) if self._division else 0
        self._max_bytes = max_bytes
        self._version = 0  # of the registrations that were sent
        self._gateways_version = 0  # of the gateways that were sent
        self._filter: MachineFilter | None = None
        self._mine: Flags = np.zeros(0, np.bool_)  # by number of the machine: whether the stream contains it
        self._wanted: Flags = np.zeros(0, np.bool_)  # the same by number of the series
        self._defined: Flags = np.zeros(0, np.bool_)  # by number of the series: whether the client knows it
        self.position = feed.ring.end
        self.gap = False
        if position:
            stated = feed.parse_position(position)
            if stated is None:
                self._begin_anew("restart")
            else:
                self.position = stated
                self._check_held()

    async def responses(
        self,
        interval: float,
        machine_filter: Callable[[], MachineFilter | None],
        is_stopping: Callable[[], bool],
        heartbeat: float | None = None,
    ) -> AsyncGenerator[columns_pb2.FollowedReadings]:
        """Yields responses until the service stops.

        Args:
            interval: The minimum seconds between two rounds of responses.
            machine_filter: Returns a filter of the machines that the caller may see now; None for all.
            is_stopping: Whether the service is stopping.
            heartbeat: The maximum seconds between two responses; None for no limit.
        """
        sent_position = -1
        while not is_stopping():
            self._set_filter(machine_filter())
            # All machines with readings before `end` are in the registrations, so a machine is sent before its readings
            end, version = self._feed.ring.end, self._feed.registrations.version
            complete_us = time.monotonic_ns() // 1000
            await self._extend_filters()
            if gateways := self._new_gateways():
                sent_position = self.position
                yield self._response(gateways=gateways)
            for machines in self._machine_pages():
                sent_position = self.position
                yield self._response(machines=machines)
            self._version = version
            while (readings := self._next_readings(end)) is not None or sent_position != self.position:
                sent_position = self.position
                yield self._response(readings, complete_us=complete_us if self.position >= end else 0)
            await asyncio.sleep(interval)
            if not is_stopping() and not await self._changed_within(heartbeat and heartbeat - interval):
                sent_position = -1  # sends a response although nothing is new

    async def _changed_within(self, seconds: float | None) -> bool:
        """Waits for a change. Returns False if there is none within the seconds; None waits without a limit."""
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._feed.wait_for_change(self.position, self._version, self._gateways_version)
        except TimeoutError:
            return False
        return True

    def _set_filter(self, machine_filter: MachineFilter | None) -> None:
        if machine_filter != self._filter:
            self._filter = machine_filter
            self._version = 0  # sends the machines that can be seen now
            self._mine = self._wanted = np.zeros(0, np.bool_)

    def _response(
        self,
        readings: columns_pb2.ReadingBlock | None = None,
        machines: Sequence[bytes] = (),
        gateways: Sequence[bytes] = (),
        complete_us: int = 0,
    ) -> columns_pb2.FollowedReadings:
        response = columns_pb2.FollowedReadings(
            readings=readings,
            machines=machines,
            gateways=gateways,
            position=self._feed.position_text(self.position),
            gap=self.gap,
            complete_us=complete_us,
        )
        self.gap = False
        return response

    def _machine_pages(self) -> Iterator[list[bytes]]:
        """Yields the serialized machines of the stream that have changed since the last call, in pages."""
        number = self._feed.machines.number
        records = [  # machines may be added while a page is sent
            record
            for record in self._feed.registrations.changed_since(self._version)
            if self._mine[number(record.machine_id)]
        ]
        of = self._feed.gateways.of if self._filter is None else _no_gateway
        messages = (_message(record, of(record.machine_id)) for record in records)
        yield from pages(messages, len, self._max_bytes // 4)

    def _new_gateways(self) -> list[bytes]:
        """Returns the serialized gateways that have changed since the last call; none for a caller with a filter."""
        gateways = self._feed.gateways
        changed = [*gateways.changed_since(self._gateways_version)] if self._filter is None else []
        self._gateways_version = gateways.version
        return [_gateway_message(state) for state in changed]

    def _next_readings(self, end: int) -> columns_pb2.ReadingBlock | None:
        """Returns the next readings before a position of the feed, and moves on; None if the stream has none there."""
        self._check_held()
        if self.position >= end:
            return None
        start = self.position
        numbers, timestamps, values = self._feed.ring.read(start, min(end, start + _AT_ONCE))
        rows = np.flatnonzero(self._wanted[numbers])
        stop = start + len(numbers)
        most = max(1, self._max_bytes // 2 // READING_BYTES)
        if len(rows) > most:
            stop = start + int(rows[most])
            rows = rows[:most]
        wanted = numbers[rows]
        new, rows_with_definition = self._new_series(wanted)
        if rows_with_definition < len(rows):
            stop = start + int(rows[rows_with_definition])
            rows = rows[:rows_with_definition]
            wanted = wanted[:rows_with_definition]
        self.position = stop
        if not len(rows):
            return None
        self._defined[new] = True
        return columns_pb2.ReadingBlock(
            defined=self._definitions(new),
            numbers=wanted.tobytes(),
            timestamps_us=timestamps[rows].tobytes(),
            values=values[rows].tobytes(),
        )

    def _check_held(self) -> None:
        """Continues at the present if the next readings are no longer held."""
        if self.position < self._feed.ring.oldest:
            self._begin_anew("behind")

    def _begin_anew(self, why: str) -> None:
        self.position = self._feed.ring.end
        self.gap = True
        metrics.ingestion_feed_gaps_total.labels(why).inc()

    async def _extend_filters(self) -> None:
        """Decides on the machines and series that are new in the feed."""
        machines, series = self._feed.machines, self._feed.series
        numbered = len(series)
        while self._division:
            await self._division.extend()
            if len(series) == numbered:
                break
            numbered = len(series)  # the store has numbered more meanwhile
        known = len(self._mine)
        if known < len(machines):
            mine = (
                self._division.owners[known:] == self._member
                if self._division
                else np.ones(len(machines) - known, np.bool_)
            )
            if self._filter is not None:
                mine &= np.array([self._filter(machine_id) for machine_id in machines.names(known)], np.bool_)
            self._mine = np.concatenate([self._mine, mine])
        if len(self._wanted) < numbered:
            new = series.machines(len(self._wanted), numbered)
            self._wanted = np.concatenate([self._wanted, self._mine[new]])
            more = np.zeros(len(self._wanted) - len(self._defined), np.bool_)
            self._defined = np.concatenate([self._defined, more])

    def _new_series(self, numbers: Numbers) -> tuple[list[int], int]:
        """Returns the series among the first of `numbers` that must be defined, and how many are the first.

        Half of the size of a response is for definitions; at least one fits.
        """
        unknown = np.flatnonzero(~self._defined[numbers])
        if not len(unknown):
            return [], len(numbers)
        new, first = np.unique(numbers[unknown], return_index=True)
        left = self._max_bytes // 2
        chosen: list[int] = []
        for index in np.argsort(first):
            number = int(new[index])
            left -= _DEFINITION_BYTES + sum(map(len, self._feed.series.key(number)))
            if chosen and left < 0:
                return chosen, int(unknown[first[index]])
            chosen.append(number)
        return chosen, len(numbers)

    def _definitions(self, numbers: Sequence[int]) -> bytes:
        table = ingestion_pb2.SeriesTable()
        for number in numbers:
            machine_id, sensor = self._feed.series.key(number)
            table.series.add(number=number, machine_id=machine_id, sensor=sensor)
        return table.SerializeToString()


def _no_gateway(machine_id: str) -> str:
    """Returns no gateway, for callers that are bound to machines."""
    return ""


def _gateway_message(state: GatewayState) -> bytes:
    return ingestion_pb2.Gateway(
        name=state.name, connected=state.connected, since_us=state.since_us
    ).SerializeToString()


def _message(record: MachineRecord, gateway: str) -> bytes:
    return ingestion_pb2.Machine(
        machine_id=record.machine_id,
        machine_type=record.machine_type,
        site=record.site,
        registered_us=record.registered_us,
        gateway=gateway,
    ).SerializeToString()
