"""Maintenance records: what was done to a machine, and when it failed.

A record is an event of the store whose content is JSON. Records of earlier versions contain only `text` and `by`; they
have no kind, so nothing is concluded from them. A record is changed by replacing its content under the next revision
number. A deleted record keeps its last content, so that the trail of its changes stays complete.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

RECORD, CHANGE = "maintenance", "maintenance_change"  # kinds of events
RecordKind: TypeAlias = Literal["overhaul", "replacement", "repair", "inspection", "failure"]
KINDS: tuple[RecordKind, ...] = get_args(RecordKind)
_DIGEST_LENGTH = 20
_LATEST_US = 253_402_300_799_000_000  # the end of the year 9999, the latest that a datetime holds


class RecordError(ValueError):
    """The content of a record cannot be read. The message says why."""


@dataclass(frozen=True, slots=True)
class Record:
    """A maintenance record.

    Attributes:
        key_us: The time in the record's identity, in µs since 1970. It is the start at the time of recording.
        digest: The rest of the identity, a digest of the first content.
        from_us: When the work began or the machine failed, in µs since 1970.
        text: What was done or observed.
        by: Who recorded it.
        kind: What it is; None for a record of an earlier version, which says nothing about the machine's life.
        to_us: When the machine was back in service, in µs since 1970; None if it is not known.
        component: The component concerned; empty if it is not known.
        failure_mode: How it failed or was about to fail; empty if it is not known.
        cost: What it cost, in the currency of the cost table.
        downtime: Hours for which the machine was not available.
        revision: 0 for the first content, then counted up.
        deleted: Whether it was deleted.
    """

    key_us: int
    digest: str
    from_us: int
    text: str
    by: str
    kind: RecordKind | None = None
    to_us: int | None = None
    component: str = ""
    failure_mode: str = ""
    cost: float | None = None
    downtime: float | None = None
    revision: int = 0
    deleted: bool = False

    @property
    def id(self) -> str:
        """The identity of the record among those of its machine."""
        return f"{self.key_us}-{self.digest}"

    @property
    def end_us(self) -> int:
        """When the machine was back in service; the start if it is not known."""
        return self.from_us if self.to_us is None else self.to_us


def new_record(record: Record) -> Record:
    """Returns a record with its identity, which is a digest of its content. A repeated request makes the same one."""
    first = replace(record, revision=0, deleted=False)
    digest = hashlib.sha256(json.dumps(_fields_of(first), sort_keys=True).encode()).hexdigest()[:_DIGEST_LENGTH]
    return replace(first, key_us=record.from_us, digest=digest)


def parse_id(record_id: str) -> tuple[int, str] | None:
    """Returns the time and the digest in the id of a record, or None if it is not one."""
    number, _, digest = record_id.partition("-")
    if not (number.isascii() and number.isdigit() and len(number) <= 18 and digest):
        return None
    return int(number), digest


def encode(record: Record) -> bytes:
    """Returns the content of a record's event. Earlier versions read `text` and `by` from it."""
    return json.dumps({name: value for name, value in _fields_of(record).items() if value is not None}).encode()


def decode(at_us: int, digest: str, content: bytes) -> Record:
    """Reads a record from its event.

    Args:
        at_us: The time of the event, in µs since 1970.
        digest: The id of the event.
        content: Its content.

    Raises:
        RecordError: The content is not a record.
    """
    try:
        fields = json.loads(content)
        text, by = fields["text"], fields["by"]
        kind = fields.get("kind")
        record = Record(
            at_us,
            digest,
            _time(fields.get("from_us", at_us)),
            _text(text),
            _text(by),
            kind if kind in KINDS else None,
            None if fields.get("to_us") is None else _time(fields["to_us"]),
            _text(fields.get("component", "")),
            _text(fields.get("failure_mode", "")),
            _amount(fields.get("cost")),
            _amount(fields.get("downtime")),
            int(fields.get("revision", 0)),
            bool(fields.get("deleted", False)),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise RecordError(f"{type(error).__name__}: {error}") from error
    return record


def encode_change(record: Record, action: str, by: str, at_us: int, before: Record | None) -> bytes:
    """Returns the content of the event that reports a change of a record.

    Args:
        record: The record after the change.
        action: created, edited or deleted.
        by: Who changed it.
        at_us: When, in µs since 1970.
        before: The record before the change; None for a new one.
    """
    change = {
        "record": record.id,
        "action": action,
        "by": by,
        "at_us": at_us,
        "before": before and _fields_of(before),
        "after": _fields_of(record),
    }
    return json.dumps(change).encode()


def live_records(records: Iterable[Record]) -> list[Record]:
    """Returns the records that are not deleted, by the time at which they begin."""
    return sorted((each for each in records if not each.deleted), key=lambda each: (each.from_us, each.id))


def _fields_of(record: Record) -> dict[str, Any]:
    return {
        "text": record.text,
        "by": record.by,
        "kind": record.kind,
        "from_us": record.from_us,
        "to_us": record.to_us,
        "component": record.component,
        "failure_mode": record.failure_mode,
        "cost": record.cost,
        "downtime": record.downtime,
        "revision": record.revision,
        "deleted": record.deleted or None,
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:80]!r} is not text")
    return value


def _time(value: Any) -> int:
    at_us = int(value)
    if not 0 <= at_us <= _LATEST_US:
        raise ValueError(f"the time {at_us} is not between 1970 and 9999")
    return at_us


def _amount(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("an amount is not finite")
    return number
