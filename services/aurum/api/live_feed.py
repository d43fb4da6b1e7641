"""The live state of the plant for all open consoles: encoded once, sent to each.

Every fifth of a second what has changed becomes the text of server-sent events. Who has just come gets everything
first, who comes back what it has missed, and who is slow gets less often more: nothing waits in a queue for anybody.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from aurum.api.alarm_desk import AlarmDesk
from aurum.api.convert import finite, moment, status_of
from aurum.api.plant_view import MachineView, PlantView
from aurum.runtime import metrics

_EVERY = 0.2  # seconds between two events
_PULSE = 5.0  # seconds between two pulses, by which a console knows that it is connected
_MACHINES_PER_EVENT = 500
_DIGITS = 5  # significant, of a reading


class LiveFeed:
    """version of what is told: the plant's. An event's id is EPOCH.VERSION, which a console gives back."""

    def __init__(self, plant: PlantView, alarms: AlarmDesk) -> None:
        self._plant = plant
        self._alarms = alarms
        self._epoch = f"{time.time_ns() // 1_000_000:x}"
        self._version = plant.version
        self._encoded: dict[int, asyncio.Task[Sequence[bytes]]] = {}  # events since a version, up to the present one
        self._ticks = 0
        self._ticked = asyncio.Event()
        self._pulse: tuple[float, bytes] = (float("-inf"), b"")
        self._alarm_event = b""
        self.consoles = 0

    async def run(self) -> None:
        """Looks for changes, for as long as it runs; without a console there is nothing to do."""
        while not self._plant.closed:
            await asyncio.sleep(_EVERY)
            if self.consoles:
                self._look()
        self._tick()

    async def follow(self, last_event_id: str | None) -> AsyncGenerator[bytes]:
        """Events without end, until the service stops. last_event_id: what the console has heard last."""
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
                for event in await self._since(seen):
                    yield event
                seen = version
                if alarms != self._alarm_event:
                    alarms = self._alarm_event
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
        alarm_event = _event("alarms", self._alarms.summary())
        if now - self._pulse[0] >= _PULSE:
            status = {"now": time.time() * 1000, "unreachable": self._plant.unreachable(), "consoles": self.consoles}
            self._pulse = (now, _event("pulse", status))
            changed = True
        if changed or alarm_event != self._alarm_event:
            self._alarm_event = alarm_event
            self._tick()

    def _tick(self) -> None:
        self._ticks += 1
        self._ticked.set()
        self._ticked = asyncio.Event()

    def _seen(self, last_event_id: str | None) -> int:
        epoch, _, version = (last_event_id or "").partition(".")
        return min(int(version), self._version) if epoch == self._epoch and version.isdecimal() else -1

    async def _since(self, seen: int) -> Sequence[bytes]:
        if seen >= self._version:
            return ()
        encoding = self._encoded.get(seen)
        if encoding is None:
            encoding = self._encoded[seen] = asyncio.create_task(self._encode(seen), name="encode-events")
        return await asyncio.shield(encoding)  # others may wait for the same

    async def _encode(self, seen: int) -> Sequence[bytes]:
        id_ = f"{self._epoch}.{self._version}"
        views = list(self._plant.changed_since(seen))
        events = []
        for start in range(0, max(1, len(views)), _MACHINES_PER_EVENT):
            part = views[start : start + _MACHINES_PER_EVENT]
            last = start + _MACHINES_PER_EVENT >= len(views)  # only then has a console heard everything
            content = {
                "machines": [_item(view) for view in part],
                "total": self._plant.machines,
                "whole": seen < 0 and start == 0,
            }
            events.append(_event("machines", content, id_ if last else None))
            await asyncio.sleep(0)  # requests have their turn
        return events


def _item(view: MachineView) -> dict[str, Any]:
    """A machine by the names that it has in the API, with its latest readings. Built by hand: it is made for each
    machine that sends something, and all at once for who has just come."""
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
