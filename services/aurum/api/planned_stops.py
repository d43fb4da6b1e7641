"""The planned stops of machines, as events in the store. A stop is cancelled by a second event."""

import hashlib
import json
import time

from aurum.api.backends import IngestionBackend
from aurum.maintenance.planned_stops import MOST_STOPS, PlannedStop
from aurum.runtime import damage
from aurum.runtime.errors import InvalidArgumentError, NotFoundError
from aurum.v1 import ingestion_pb2

KIND = "planned_stop"
_CANCELLED = "cancelled"
_DIGEST_LENGTH = 12
_MOST_EVENTS = 1000


async def planned_stops(ingestion: IngestionBackend, machine_id: str, now_us: int) -> list[PlannedStop]:
    """Returns the future planned stops of a machine, the next first. Raises AurumError."""
    events = await ingestion.list_events(KIND, machine_id, now_us, 0, _MOST_EVENTS)
    cancelled = {event.id.removesuffix(_CANCELLED) for event in events if event.id.endswith(_CANCELLED)}
    live = (event for event in events if not event.id.endswith(_CANCELLED) and event.id not in cancelled)
    return sorted(filter(None, map(_decode, live)), key=lambda stop: stop.at_us)


async def add_planned_stop(ingestion: IngestionBackend, machine_id: str, at_us: int, text: str, by: str) -> PlannedStop:
    """Adds a planned stop, unless there is one at that time already.

    Raises:
        InvalidArgumentError: The time is in the past, or there are too many stops.
        AurumError: Ingestion did not answer.
    """
    now_us = time.time_ns() // 1000
    if at_us <= now_us:
        raise InvalidArgumentError.for_field("at", "must be in the future")
    stops = await planned_stops(ingestion, machine_id, now_us)
    for stop in stops:
        if stop.at_us == at_us:
            return stop
    if len(stops) >= MOST_STOPS:
        raise InvalidArgumentError.for_field("at", f"is one of more than {MOST_STOPS} planned stops; cancel others")
    digest = hashlib.sha256(f"{at_us}\0{now_us}\0{text}\0{by}".encode()).hexdigest()[:_DIGEST_LENGTH]
    stop = PlannedStop(f"{at_us}-{digest}", at_us, text, by)
    await ingestion.record_events([_event(machine_id, stop, stop.id)])
    return stop


async def cancel_planned_stop(ingestion: IngestionBackend, machine_id: str, stop_id: str) -> None:
    """Cancels a future planned stop. Raises NotFoundError if there is none with this id."""
    stops = await planned_stops(ingestion, machine_id, time.time_ns() // 1000)
    stop = next((each for each in stops if each.id == stop_id), None)
    if stop is None:
        raise NotFoundError(
            f"machine {machine_id} has no future planned stop {stop_id!r}", reason="PLANNED_STOP_NOT_FOUND"
        )
    await ingestion.record_events([_event(machine_id, stop, stop.id + _CANCELLED)])


def _event(machine_id: str, stop: PlannedStop, id_: str) -> ingestion_pb2.Event:
    content = json.dumps({"text": stop.text, "by": stop.by}).encode()
    return ingestion_pb2.Event(kind=KIND, machine_id=machine_id, at_us=stop.at_us, id=id_, content=content)


def _decode(event: ingestion_pb2.Event) -> PlannedStop | None:
    """Decodes a planned stop. Returns None and reports the damage if it cannot be read."""
    try:
        content = json.loads(event.content)
        return PlannedStop(event.id, event.at_us, str(content["text"]), str(content["by"]))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        name = f"planned stop {event.id} of machine {event.machine_id}"
        damage.report("event", name, f"{type(error).__name__}: {error}", "it is left out of the list")
        return None
