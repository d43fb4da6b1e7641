"""The revisions of the alarm rules that engineers have stored, as events of the store.

A revision is a whole set of rules, or the return to the rules of the file. It is written at once, in as many events as
its size needs. Of two revisions of one number, which replicas of the API wrote at the same time, the first counts.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from aurum.alarms.rule_changes import RuleChange
from aurum.alarms.rules import AlarmRule, AlarmRules
from aurum.runtime import damage
from aurum.v1 import ingestion_pb2

EVENT_KIND = "alarm_rules"
MOST_RULE_BYTES = 8_000  # of one rule as JSON, so that each fits into an event
_EVENT_BYTES = 15_500  # of an event's content; the store takes 16 kB
_HEAD_BYTES = 7_000  # of what an event has besides rules
_MOST_CHANGE = 300  # characters of the text of one change
_DIGEST_LENGTH = 16


@dataclass(frozen=True, slots=True)
class RulesRevision:
    """A revision of the alarm rules.

    Attributes:
        number: Its number, from 1 on.
        at_us: When it was stored, in µs since 1970; increases with the number.
        by: Who stored it.
        reason: Why.
        rules: The rules; None if those of the file are in force again.
        write_id: Distinguishes it from others of the same number.
        file_digest: The digest of the file's rules when it was stored, see `digest_of`.
        restores: The revision that it repeats, 0 for the file; None if it repeats none.
        changes: What it changed, one text for each rule; the first ones if there are many.
        rule_changes: The same for programs; empty in revisions of earlier versions. The first ones if there are many.
        change_count: How many rules it changed.
    """

    number: int
    at_us: int
    by: str
    reason: str
    rules: AlarmRules | None
    write_id: str
    file_digest: str
    restores: int | None = None
    changes: tuple[str, ...] = ()
    change_count: int = 0
    rule_changes: tuple[RuleChange, ...] = ()


class _Part(BaseModel):
    """The content of one event. Fields of newer versions are ignored; those of rules are not."""

    revision: int
    write_id: str
    part: int
    parts: int
    by: str = ""
    reason: str = ""
    file_digest: str = ""
    from_file: bool = False
    restores: int | None = None
    changes: tuple[str, ...] = ()
    rule_changes: tuple[RuleChange, ...] = ()
    change_count: int = 0
    rules: list[dict[str, Any]] = []


def digest_of(rules: AlarmRules) -> str:
    """Returns a digest of rules, by which sets of rules are compared."""
    return hashlib.sha256(rules.model_dump_json().encode()).hexdigest()[:_DIGEST_LENGTH]


def encoded_rule(rule: AlarmRule) -> dict[str, Any]:
    """Returns a rule as JSON, without what is the default."""
    return rule.model_dump(mode="json", exclude_defaults=True)


def rule_bytes(rule: AlarmRule) -> int:
    """Returns the size of a rule as JSON, in bytes."""
    return len(_json(encoded_rule(rule)))


def to_events(revision: RulesRevision) -> list[ingestion_pb2.Event]:
    """Returns the events that record a revision. None of its rules may exceed MOST_RULE_BYTES."""
    head: dict[str, Any] = {
        "revision": revision.number,
        "write_id": revision.write_id,
        "by": revision.by,
        "reason": revision.reason,
        "file_digest": revision.file_digest,
        "from_file": revision.rules is None,
        "restores": revision.restores,
        "change_count": revision.change_count,
    }
    shown = [change if len(change) <= _MOST_CHANGE else f"{change[:_MOST_CHANGE]}…" for change in revision.changes]
    head["changes"] = _fitting(shown, (_HEAD_BYTES - len(_json(head))) // 2)
    coded = [change.model_dump(mode="json", exclude_defaults=True) for change in revision.rule_changes]
    head["rule_changes"] = _fitting(coded, _HEAD_BYTES - len(_json(head)))
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for rule in revision.rules.rules if revision.rules else ():
        encoded = encoded_rule(rule)
        nbytes = len(_json(encoded)) + 2  # with the comma behind it
        if parts[-1] and size + nbytes > _EVENT_BYTES - _HEAD_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(encoded)
        size += nbytes
    return [
        ingestion_pb2.Event(
            kind=EVENT_KIND,
            machine_id="",
            at_us=revision.at_us,
            id=f"{revision.number:08}-{revision.write_id}-{part:03}",
            content=_json({**head, "part": part, "parts": len(parts), "rules": rules}),
        )
        for part, rules in enumerate(parts)
    ]


def _fitting(changes: Sequence[Any], most_bytes: int) -> list[Any]:
    """Returns the first changes whose JSON has at most so many bytes."""
    for count, change in enumerate(changes):
        most_bytes -= len(_json(change)) + 2
        if most_bytes < 0:
            return list(changes[:count])
    return list(changes)


def revisions_of(events: Iterable[ingestion_pb2.Event]) -> list[RulesRevision]:
    """Returns the revisions that events record, the newest first.

    A revision is left out if one of its events is missing. One that cannot be read is reported as damaged.
    """
    writes: defaultdict[tuple[int, str], dict[int, tuple[_Part, ingestion_pb2.Event]]] = defaultdict(dict)
    for event in events:
        part = _decode(event)
        if part is not None:
            writes[part.revision, part.write_id][part.part] = (part, event)
    found: dict[int, tuple[int, RulesRevision]] = {}
    for (number, _), parts in writes.items():
        revision = _joined(parts)
        if revision is None:
            continue
        stored = min(event.number for _, event in parts.values())
        if number not in found or stored < found[number][0]:
            found[number] = (stored, revision)
    return [found[number][1] for number in sorted(found, reverse=True)]


def _joined(parts: dict[int, tuple[_Part, ingestion_pb2.Event]]) -> RulesRevision | None:
    part, event = next(iter(parts.values()))
    if len(parts) != part.parts or parts.keys() != set(range(len(parts))):
        return None
    rules: AlarmRules | None = None
    try:
        if not part.from_file:
            rules = AlarmRules.model_validate({"rules": [rule for each in _ordered(parts) for rule in each.rules]})
    except ValidationError as error:
        _report(f"revision {part.revision}", error)
        return None
    return RulesRevision(
        number=part.revision,
        at_us=event.at_us,
        by=part.by,
        reason=part.reason,
        rules=rules,
        write_id=part.write_id,
        file_digest=part.file_digest,
        restores=part.restores,
        changes=part.changes,
        change_count=part.change_count,
        rule_changes=part.rule_changes,
    )


def _ordered(parts: dict[int, tuple[_Part, ingestion_pb2.Event]]) -> Iterator[_Part]:
    return (parts[index][0] for index in sorted(parts))


def _decode(event: ingestion_pb2.Event) -> _Part | None:
    try:
        return _Part.model_validate_json(event.content)
    except ValidationError as error:
        _report(event.id, error)
        return None


def _report(name: str, error: ValidationError) -> None:
    mistake = error.errors(include_url=False, include_input=False)[0]
    problem = f"{'.'.join(map(str, mistake['loc'])) or 'content'}: {mistake['msg']}"
    damage.report("rules", f"stored alarm rules {name}", problem, "the last valid alarm rules stay in force")


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()
