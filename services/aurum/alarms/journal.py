"""The entries of the alarm journal, as events of the store. Entries of newer versions are tolerated."""

import json
from dataclasses import asdict, fields
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from aurum.alarms.lifecycle import Cause, Priority, Quantity, Transition, TransitionKind
from aurum.runtime import damage, metrics
from aurum.v1 import ingestion_pb2

EVENT_KIND = "alarm"

_FIELDS = frozenset(field.name for field in fields(Transition))
_KNOWN_WORDS = {
    "priority": ("", *get_args(Priority)),
    "quantity": ("", *get_args(Quantity)),
    "cause": ("", *get_args(Cause)),
}
_KINDS = frozenset(get_args(TransitionKind))
_TRANSITION = TypeAdapter(Transition)


def to_event(transition: Transition) -> ingestion_pb2.Event:
    """Returns the event that records a transition. Processes that detect the same transition make the same event."""
    return ingestion_pb2.Event(
        kind=EVENT_KIND,
        machine_id="",
        at_us=transition.at_us,
        id=transition.entry_id,
        content=encode(transition),
    )


def from_event(event: ingestion_pb2.Event) -> Transition | None:
    """Returns the transition that an event records, see `decode`."""
    return decode(event.content, f"{event.id} at {event.at_us}")


def key_of(event: ingestion_pb2.Event) -> str:
    """Returns the key of the entry that an event records, see `aurum.alarms.journaled.journal_key`."""
    return f"{event.at_us}~{event.id}"


def machine_of(event: ingestion_pb2.Event) -> str:
    """Returns the machine of the transition that an event records."""
    return event.id.partition("~")[0]


def rule_of(event: ingestion_pb2.Event) -> str:
    """Returns the rule of the transition that an event records."""
    return event.id.partition("~")[2].partition("~")[0]


def encode(transition: Transition) -> bytes:
    """Encodes a transition as an entry of the journal."""
    return json.dumps(asdict(transition)).encode()


def decode(entry: bytes, name: str) -> Transition | None:
    """Decodes an entry of the journal. Unknown fields are ignored.

    Args:
        entry: The content of the event.
        name: A name for the entry in error reports.

    Returns:
        The transition, without a priority or quantity that only newer versions know. None if the entry cannot be
        read, or has a kind that only newer versions know.
    """
    try:
        content: Any = json.loads(entry)
        if isinstance(content, dict):
            kind = content.get("kind")
            if isinstance(kind, str) and kind not in _KINDS:
                metrics.unknown_total.labels("kind of alarm transition").inc()
                return None
            metrics.unknown_total.labels("field of alarm transition").inc(len(content.keys() - _FIELDS))
            for field, known in _KNOWN_WORDS.items():
                if field in content and content[field] not in known:
                    metrics.unknown_total.labels(f"{field} of alarm transition").inc()
                    del content[field]
        return _TRANSITION.validate_python(content)
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_input=False)[0]
        problem = f"{'.'.join(map(str, mistake['loc'])) or 'entry'}: {mistake['msg']}"
    except (ValueError, RecursionError) as error:
        problem = f"is not JSON: {error}"
    damage.report("event", f"alarm transition {name}", problem, "it is skipped")
    return None
