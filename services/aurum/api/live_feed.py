"""Streams the live state of the plant to all open consoles as server-sent events.

Changes are encoded every 0.2 s, once for all consoles at the same version. A new console first gets the whole state,
and a returning one the changes that it missed. There are no queues: a slow console gets larger events less often.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from aurum.api import metrics
from aurum.api.alarm_service import AlarmService
from aurum.api.machine_cache import MachineCache, MachineView
from aurum.api.serializers import finite, moment, status_of

_EVERY = 0.2  # seconds between two checks for changes
_PULSE = 5.0  # seconds between two pulses, which show a console that it is connected
_MACHINES_PER_EVENT, _VALUES_PER_EVENT = 500, 20_000
_DIGITS = 5  # significant digits of a reading


class LiveFeed:
    """Encodes changes of the plant view and streams them to consoles.

    An event's id is EPOCH.VERSION, where the version is the plant view's. A console that reconnects sends the last id.
    """

    def __init__(self, plant: MachineCache, alarms: AlarmService) -> None:
        self._plant = plant
        self._alarms = alarms
        self._epoch = f"{time.time_ns() // 1_000_000:x}"
        self._version = plant.version
        # By a version and the sites of a console: the events from that version to the present one
        self._encoded: dict[tuple[int, frozenset[str]], asyncio.Task[Sequence[bytes]]] = {}
        self._ticks = 0
        self._ticked = asyncio.Event()
        self._pulse: tuple[float, bytes] = (float("-inf"), b"")
        self._alarm_events: dict[frozenset[str], bytes] = {}
        self._alarm_revision: tuple[int, bool] = (-1, False)
        self.consoles = 0

    async def run(self) -> None:
        """Checks for changes while there are consoles. Runs until the plant view is closed."""
        while not self._plant.closed:
            await asyncio.sleep(_EVERY)
            if self.consoles:
                self._look()
        self._tick()

    async def follow(self, last_event_id: str | None, sites: frozenset[str] = frozenset()) -> AsyncGenerator[bytes]:
        """Yields encoded events until the service stops.

        Args:
            last_event_id: The id of the last event that the console received, if any.
            sites: The sites that the console may see; all if empty.
        """
        self.consoles += 1
        metrics.event_streams.set(self.consoles)
        try:
            seen = self._seen(last_event_id)
            if self.consoles == 1:
                self._look()
            alarms = pulse = b""
            yield b"retry: 1000\n\n"
            while not self._plant.closed:
                version, tick = self._version, self._ticks
                for event in await self._since(seen, sites):
                    yield event
                seen = version
                if alarms != (event := self._alarms_of(sites)):
                    alarms = event
                    yield alarms
                if pulse != self._pulse[1]:
                    pulse = self._pulse[1]
                    yield pulse
                if tick == self._ticks:
                    await self._ticked.wait()
        finally:
            self.consoles -= 1
            metrics.event_streams.set(self.consoles)

    def _look(self) -> None:
        now = time.monotonic()
        changed = self._plant.version != self._version
        if changed:
            self._version = self._plant.version
            self._encoded.clear()
        revision = (self._alarms.revision, self._alarms.loaded)
        if now - self._pulse[0] >= _PULSE:
            status = {"now": time.time() * 1000, "unreachable": self._plant.unreachable(), "consoles": self.consoles}
            self._pulse = (now, _event("pulse", status))
            changed = True
        if revision != self._alarm_revision:
            self._alarm_revision = revision
            self._alarm_events.clear()
            changed = True
        if changed:
            self._tick()

    def _tick(self) -> None:
        self._ticks += 1
        self._ticked.set()
        self._ticked = asyncio.Event()

    def _seen(self, last_event_id: str | None) -> int:
        epoch, _, version = (last_event_id or "").partition(".")
        return min(int(version), self._version) if epoch == self._epoch and version.isdecimal() else -1

    def _alarms_of(self, sites: frozenset[str]) -> bytes:
        found = self._alarm_events.get(sites)
        if found is None:
            found = self._alarm_events[sites] = _event("alarms", self._alarms.summary(sites))
        return found

    async def _since(self, seen: int, sites: frozenset[str]) -> Sequence[bytes]:
        if seen >= self._version:
            return ()
        encoding = self._encoded.get((seen, sites))
        if encoding is None:
            encoding = asyncio.create_task(self._encode(seen, sites), name="encode-events")
            self._encoded[seen, sites] = encoding
        return await asyncio.shield(encoding)  # other consoles may wait for the same task

    async def _encode(self, seen: int, sites: frozenset[str]) -> Sequence[bytes]:
        id_ = f"{self._epoch}.{self._version}"
        views = [view for view in self._plant.changed_since(seen) if not sites or view.machine.site in sites]
        total = self._plant.machines_of(sites)
        events: list[bytes] = []
        start = 0
        # A caller bound to sites gets no empty event, since it would reveal a change at another site
        while (not events and (seen < 0 or not sites)) or start < len(views):
            part = _part(views, start)
            last = start + len(part) >= len(views)  # only the last event has an id, since it completes the version
            content = {
                "machines": [_item(view) for view in part],
                "total": total,
                "whole": seen < 0 and start == 0,
            }
            events.append(_event("machines", content, id_ if last else None))
            start += len(part)
            await asyncio.sleep(0)  # lets the event loop handle requests
        return events


def _part(views: Sequence[MachineView], start: int) -> Sequence[MachineView]:
    """Returns the machines for one event, from index `start` on: at least one, and within the limits of an event."""
    end, values = start, 0
    while end < len(views) and end - start < _MACHINES_PER_EVENT:
        values += len(views[end].machine.sensors)
        if end > start and values > _VALUES_PER_EVENT:
            break
        end += 1
    return views[start:end]


def _item(view: MachineView) -> dict[str, Any]:
    """Returns a machine with its latest readings, with the field names of the API.

    It is a plain dictionary for speed, since it is built for every changed machine, and for all machines at once when
    a console connects.
    """
    machine, prediction = view.machine, view.prediction
    item: dict[str, Any] = {
        "machine_id": machine.machine_id,
        "machine_type": machine.machine_type,
        "site": machine.site,
        "status": status_of(machine),
        "last_seen": moment(machine.last_seen_us).isoformat() if machine.last_seen_us else None,
        "risk_score": None,
        "rul": None,
        "values": {state.sensor: finite(float(f"{state.value:.{_DIGITS}g}")) for state in machine.sensors},
    }
    if prediction is not None:
        item |= {
            "risk_score": round(prediction.risk_score, 4),
            "anomaly_score": round(prediction.anomaly_score, 4),
            "degraded": prediction.degraded,
        }
        if prediction.HasField("rul"):
            rul = prediction.rul
            item["rul"] = {"estimate": rul.estimate, "lower": rul.lower, "upper": rul.upper, "unit": rul.unit}
    return item


def _event(name: str, content: dict[str, Any], id_: str | None = None) -> bytes:
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
