"""Streams the live state of the plant to all open consoles as server-sent events.

Changes are encoded every 0.2 s, once for all consoles at the same version. A new console first gets the whole state,
and a returning one the changes that it missed. There are no queues: a slow console gets larger events less often.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from aurum.api import metrics
from aurum.api.alarm_service import AlarmService
from aurum.api.machine_cache import MachineCache, MachineView
from aurum.api.serializers import finite_or_none, machine_status, origin_of, to_datetime, unknown_out

_CHECK_SECONDS = 0.2  # between two checks for changes
_PULSE_SECONDS = 5.0  # between two pulses, which show a console that it is connected
_MACHINES_PER_EVENT, _VALUES_PER_EVENT = 500, 20_000
_EPOCH_BYTES = 6
_DIGITS = 5  # significant digits of a reading


class LiveFeed:
    """Encodes changes of the machine cache and streams them to consoles.

    An event's id is EPOCH.VERSION, with the version of the machine cache. A console that reconnects sends its last id.
    """

    def __init__(
        self,
        machine_cache: MachineCache,
        alarm_service: AlarmService,
        hanging_gateways: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        """Creates the feed.

        Args:
            machine_cache: The machines.
            alarm_service: The alarms.
            hanging_gateways: Returns the gateways that do not answer, each with its name and since when.
        """
        self._hanging_gateways = hanging_gateways
        self._machine_cache = machine_cache
        self._alarm_service = alarm_service
        self._epoch = secrets.token_hex(_EPOCH_BYTES)
        self._version = machine_cache.version
        # By a version and the sites of a console: the events from that version to the present one
        self._encoded: dict[tuple[int, frozenset[str]], asyncio.Task[Sequence[bytes]]] = {}
        self._change_count = 0
        self._changed = asyncio.Event()
        # When it was made (monotonic seconds), for all consoles, and for those that are bound to sites
        self._pulse: tuple[float, bytes, bytes] = (float("-inf"), b"", b"")
        self._alarm_events: dict[frozenset[str], bytes] = {}
        self._alarm_revision: tuple[int, bool] = (-1, False)
        self.consoles = 0

    async def run(self) -> None:
        """Checks for changes while there are consoles. Runs until the machine cache is closed."""
        while not self._machine_cache.closed:
            await asyncio.sleep(_CHECK_SECONDS)
            if self.consoles:
                self._check_for_changes()
        self._wake_consoles()

    async def follow(self, last_event_id: str | None, sites: frozenset[str] = frozenset()) -> AsyncGenerator[bytes]:
        """Yields encoded events until the service stops.

        Args:
            last_event_id: The id of the last event that the console received, if any.
            sites: The sites that the console may see; all if empty.
        """
        self.consoles += 1
        metrics.event_streams.set(self.consoles)
        try:
            seen = self._version_in(last_event_id)
            if self.consoles == 1:
                self._check_for_changes()
            alarms = pulse = b""
            yield b"retry: 1000\n\n"
            while not self._machine_cache.closed:
                version, change = self._version, self._change_count
                for event in await self._events_since(seen, sites):
                    yield event
                seen = version
                if alarms != (event := self._alarms_event(sites)):
                    alarms = event
                    yield alarms
                _, everywhere, at_sites = self._pulse
                latest = at_sites if sites else everywhere
                if pulse != latest:
                    pulse = latest
                    yield pulse
                if change == self._change_count:
                    await self._changed.wait()
        finally:
            self.consoles -= 1
            metrics.event_streams.set(self.consoles)

    def _check_for_changes(self) -> None:
        now = time.monotonic()
        changed = self._machine_cache.version != self._version
        if changed:
            self._version = self._machine_cache.version
            self._encoded.clear()
        revision = (self._alarm_service.revision, self._alarm_service.loaded)
        if now - self._pulse[0] >= _PULSE_SECONDS:
            status = {
                "now": time.time() * 1000,
                "unreachable": self._machine_cache.unreachable_services(),
                "consoles": self.consoles,
            }
            # The gateways of all sites are not for a console that is bound to some
            everywhere = status | {"gateways": self._hanging_gateways()}
            self._pulse = (now, _encode_event("pulse", everywhere), _encode_event("pulse", status))
            changed = True
        if revision != self._alarm_revision:
            self._alarm_revision = revision
            self._alarm_events.clear()
            changed = True
        if changed:
            self._wake_consoles()

    def _wake_consoles(self) -> None:
        self._change_count += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _version_in(self, last_event_id: str | None) -> int:
        epoch, _, version = (last_event_id or "").partition(".")
        return min(int(version), self._version) if epoch == self._epoch and version.isdecimal() else -1

    def _alarms_event(self, sites: frozenset[str]) -> bytes:
        event = self._alarm_events.get(sites)
        if event is None:
            event = self._alarm_events[sites] = _encode_event("alarms", self._alarm_service.summary(sites))
        return event

    async def _events_since(self, seen: int, sites: frozenset[str]) -> Sequence[bytes]:
        if seen >= self._version:
            return ()
        encoding = self._encoded.get((seen, sites))
        if encoding is None:
            encoding = asyncio.create_task(self._encode(seen, sites), name="encode-events")
            self._encoded[seen, sites] = encoding
        return await asyncio.shield(encoding)  # other consoles may wait for the same task

    async def _encode(self, seen: int, sites: frozenset[str]) -> Sequence[bytes]:
        id_ = f"{self._epoch}.{self._version}"
        views = [view for view in self._machine_cache.changed_since(seen) if not sites or view.machine.site in sites]
        total = self._machine_cache.count_machines(sites)
        events: list[bytes] = []
        start = 0
        # A caller bound to sites gets no empty event, since it would reveal a change at another site
        while (not events and (seen < 0 or not sites)) or start < len(views):
            part = _machines_for_event(views, start)
            last = start + len(part) >= len(views)  # only the last event has an id, since it completes the version
            content = {
                "machines": [_machine_json(view) for view in part],
                "total": total,
                "whole": seen < 0 and start == 0,
            }
            events.append(_encode_event("machines", content, id_ if last else None))
            start += len(part)
            await asyncio.sleep(0)  # lets the event loop handle requests
        return events


def _machines_for_event(views: Sequence[MachineView], start: int) -> Sequence[MachineView]:
    """Returns the machines for one event, from index `start` on: at least one, and within the limits of an event."""
    end, values = start, 0
    while end < len(views) and end - start < _MACHINES_PER_EVENT:
        values += len(views[end].machine.sensors)
        if end > start and values > _VALUES_PER_EVENT:
            break
        end += 1
    return views[start:end]


def _machine_json(view: MachineView) -> dict[str, Any]:
    """Returns a machine with its latest readings, with the field names of the API.

    It is a plain dictionary for speed, since it is built for every changed machine, and for all machines at once when
    a console connects.
    """
    machine, prediction = view.machine, view.prediction
    item: dict[str, Any] = {
        "machine_id": machine.machine_id,
        "machine_type": machine.machine_type,
        "site": machine.site,
        "status": machine_status(machine),
        "last_seen": to_datetime(machine.last_seen_us).isoformat() if machine.last_seen_us else None,
        "risk_score": None,
        "rul": None,
        "values": {state.sensor: finite_or_none(float(f"{state.value:.{_DIGITS}g}")) for state in machine.sensors},
    }
    if prediction is not None:
        item |= {
            "risk_score": None if prediction.risk_unknown_reason else round(prediction.risk_score, 4),
            **origin_of(prediction),
            "rul_unknown_reason": prediction.rul_unknown_reason or None,
            "rul_unknown": unknown_out(prediction.rul_unknown) if prediction.HasField("rul_unknown") else None,
            "anomaly_score": round(prediction.anomaly_score, 6),
            "anomaly_threshold": prediction.anomaly_threshold or None,
            "degraded": prediction.degraded,
            "predicted_at": datetime.fromtimestamp(view.predicted_at, UTC).isoformat(timespec="seconds"),
        }
        if prediction.HasField("rul"):
            rul = prediction.rul
            item["rul"] = {"estimate": rul.estimate, "lower": rul.lower, "upper": rul.upper, "unit": rul.unit}
    return item


def _encode_event(name: str, content: dict[str, Any], id_: str | None = None) -> bytes:
    head = f"id: {id_}\n" if id_ else ""
    return f"{head}event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
