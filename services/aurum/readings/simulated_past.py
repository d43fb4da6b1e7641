"""Marks of simulated pasts in the store: an event when an import begins, and one when it is complete."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from aurum.runtime import damage
from aurum.runtime.time_units import HOUR_US
from aurum.v1 import ingestion_pb2

KIND = "simulated_past"
OPERATOR = "simulated operator"  # who acknowledges its alarms
_COMPLETE = "complete"
_ACKNOWLEDGED_AFTER_US = 900_000_000
_UNATTENDED_US = 4 * HOUR_US  # at the end of a past, whose alarms still wait


@dataclass(frozen=True, slots=True)
class SimulatedPast:
    """A past that a simulator has given to its machines.

    Attributes:
        name: The simulator.
        site: The site of the machines.
        start_us: The first time of readings, in µs since 1970.
        end_us: The last one.
        complete: Whether all of it is stored.
    """

    name: str
    site: str
    start_us: int
    end_us: int
    complete: bool = False

    def to_event(self) -> ingestion_pb2.Event:
        """Returns the event that marks the beginning of the import, or that it is complete."""
        return ingestion_pb2.Event(
            kind=KIND,
            at_us=self.end_us,
            id=f"{self.name}~{_COMPLETE}" if self.complete else self.name,
            content=json.dumps(asdict(self)).encode(),
        )


def pasts_of(events: Iterable[ingestion_pb2.Event]) -> list[SimulatedPast]:
    """Returns the pasts that events mark, each once, as far as they can be read."""
    found: dict[tuple[str, int], SimulatedPast] = {}
    for event in events:
        try:
            content = json.loads(event.content)
            past = SimulatedPast(
                str(content["name"]),
                str(content["site"]),
                int(content["start_us"]),
                int(content["end_us"]),
                content["complete"] is True,
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            damage.report("event", f"simulated past {event.id}", f"{type(error).__name__}: {error}", "it is skipped")
            continue
        key = past.name, past.end_us
        if past.complete or key not in found:
            found[key] = past
    return list(found.values())


def acknowledged_us(raised_us: int, end_us: int) -> int | None:
    """Returns when the simulated operator acknowledges an alarm, or None if nobody does before the end of the past.

    Args:
        raised_us: When it was raised, in µs since 1970.
        end_us: The end of the past.
    """
    at_us = raised_us + _ACKNOWLEDGED_AFTER_US
    return at_us if at_us <= end_us - _UNATTENDED_US else None
