"""Revisions of the alarm rules in the store come into force, and the file is the base."""

import json
from pathlib import Path
from typing import Any

import pytest

from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.rule_changes import changes_between
from aurum.alarms.rules import AlarmRules
from aurum.alarms.rules_revision import MOST_RULE_BYTES, RulesRevision, digest_of, revisions_of, to_events
from aurum.alarms.stored_rules import StoredRules
from aurum.api.alarm_rules import RulesDesk
from aurum.prediction.fleet.alarm_evaluation import AlarmEvaluation
from aurum.runtime import damage
from aurum.runtime.errors import FailedPreconditionError
from aurum.v1 import ingestion_pb2

MOST_CONTENT = 16_000  # bytes of an event's content


class Log:
    """The events of a store, numbered as they are recorded."""

    def __init__(self) -> None:
        self.events: list[ingestion_pb2.Event] = []

    def record(self, events: list[ingestion_pb2.Event]) -> None:
        for event in events:
            event.number = len(self.events) + 1
            self.events.append(event)

    async def list_after(self, kind: str, number: int, limit: int) -> list[ingestion_pb2.Event]:
        assert kind == "alarm_rules"
        return [event for event in self.events if event.number > number][-limit:]


def rule(name: str, above: float = 80, **more: Any) -> dict[str, Any]:
    return {"name": name, "text": name, "sensor": {"sensor": "heat", "above": above}, **more}


def revision(number: int, *rules: dict[str, Any], write_id: str = "a", **more: Any) -> RulesRevision:
    kept = AlarmRules.model_validate({"rules": rules})
    return RulesRevision(number, number, "Ada", "tuning", kept, write_id, more.pop("file_digest", ""), **more)


def names(rules: FollowedRules) -> list[str]:
    return [each.name for each in rules.current.rules]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(f"rules: [{json.dumps(rule('base'))}]")
    return path


async def test_stored_revision_replaces_rules_of_the_file(file: Path) -> None:
    log = Log()
    rules = FollowedRules(file, with_store=True)
    stored = StoredRules(rules, log.list_after)
    assert not rules.loaded
    await stored.read()
    assert (rules.loaded, rules.from_file, names(rules)) == (True, True, ["base"])
    log.record(to_events(revision(1, rule("hot"), file_digest=digest_of(rules.file_rules))))
    await stored.read()
    assert (names(rules), rules.from_file, rules.file_changed) == (["hot"], False, False)
    file.with_suffix(".new").write_text(f"rules: [{json.dumps(rule('other'))}]")
    file.with_suffix(".new").replace(file)
    rules.refresh()
    assert (names(rules), rules.file_changed) == (["hot"], True)
    log.record(to_events(RulesRevision(2, 2, "Ada", "back", None, "b", "", restores=0)))
    await stored.read()
    assert (names(rules), rules.from_file, rules.file_changed) == (["other"], True, False)


async def test_stored_revision_is_in_force_after_a_restart(file: Path) -> None:
    log = Log()
    for number in range(1, 100):
        log.record(to_events(revision(number, rule(f"rule_{number}"))))
    rules = FollowedRules(file, with_store=True)
    await StoredRules(rules, log.list_after).read()
    assert names(rules) == ["rule_99"]


async def test_unreadable_stored_rules_leave_the_valid_ones(file: Path) -> None:
    log = Log()
    log.record(to_events(revision(1, rule("hot"))))
    [broken] = to_events(revision(2, rule("cold")))
    broken.content = broken.content.replace(b"heat", b'heat", "newer": "field')
    log.record([broken])
    rules = FollowedRules(file, with_store=True)
    await StoredRules(rules, log.list_after).read()
    assert names(rules) == ["hot"]
    [found] = [each for each in damage.latest() if each["name"] == "stored alarm rules revision 2"]
    assert "newer" in found["problem"]
    damage.withdraw("rules", "stored alarm rules revision 2")


def test_large_revision_is_split_and_read_as_a_whole() -> None:
    text = "\N{SNOWMAN}" * 200
    rules = [rule(f"rule_{number}", text=text, machine_types=["pump" * 20] * 5) for number in range(200)]
    changes = tuple(f"rule_{number} {text * 5}" for number in range(200))
    events = to_events(revision(1, *rules, changes=changes, change_count=200))
    assert len(events) > 5
    assert max(len(event.content) for event in events) <= MOST_CONTENT
    [found] = revisions_of(events)
    assert found.rules == revision(1, *rules).rules
    assert found.change_count == 200
    assert 0 < len(found.changes) < 200
    assert revisions_of(events[:-1]) == []


def test_changes_of_a_revision_are_stored_for_programs() -> None:
    before = AlarmRules.model_validate({"rules": [rule("gone"), rule("hot")]})
    after = AlarmRules.model_validate({"rules": [rule("hot", priority="urgent"), rule("new")]})
    changes = tuple(changes_between(before, after))
    [found] = revisions_of(to_events(revision(1, rule("hot"), rule_changes=changes, change_count=3)))
    assert found.rule_changes == changes
    assert [(each.rule, each.kind) for each in changes] == [("gone", "removed"), ("hot", "changed"), ("new", "added")]
    assert [(each.field, each.after) for each in changes[1].fields] == [("priority", "urgent")]


def test_many_changes_for_programs_are_shortened() -> None:
    before = AlarmRules(rules=())
    after = AlarmRules.model_validate({"rules": [rule(f"rule_{'x' * 30}_{number}") for number in range(200)]})
    changes = tuple(changes_between(before, after))
    texts = tuple(map(str, changes))
    events = to_events(revision(1, *[], changes=texts, rule_changes=changes, change_count=200))
    assert max(len(event.content) for event in events) <= MOST_CONTENT
    [found] = revisions_of(events)
    assert 0 < len(found.rule_changes) < 200
    assert found.rule_changes == changes[: len(found.rule_changes)]


def test_largest_rule_fits_into_an_event() -> None:
    kept = rule("hot", machine_types=["\N{SNOWMAN}" * ((MOST_RULE_BYTES - 150) // 3)])
    events = to_events(revision(1, kept, changes=("x" * 300,) * 100, change_count=100))
    assert max(len(event.content) for event in events) <= MOST_CONTENT


def test_first_of_two_writes_of_a_revision_counts() -> None:
    first, second = (to_events(revision(1, rule(name), write_id=name))[0] for name in ("one", "two"))
    first.number, second.number = 7, 8
    for events in ([first, second], [second, first]):
        assert [each.write_id for each in revisions_of(events)] == ["one"]


class Ingestion:
    """The part of ingestion that keeps the revisions, shared by replicas of the API."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.before_write: list[ingestion_pb2.Event] = []  # what another replica writes just before this one does
        self.list_events_after = log.list_after

    async def record_events(self, events: list[ingestion_pb2.Event]) -> None:
        self.log.record(self.before_write)
        self.before_write = []
        self.log.record(events)


async def test_second_of_two_simultaneous_changes_is_refused(file: Path) -> None:
    ingestion = Ingestion(Log())
    rules = FollowedRules(file, with_store=True)
    desk = RulesDesk(ingestion, rules)  # type: ignore[arg-type]
    ingestion.before_write = to_events(revision(1, rule("theirs"), write_id="theirs"))
    mine = AlarmRules.model_validate({"rules": [rule("mine")]})
    with pytest.raises(FailedPreconditionError) as refused:
        await desk.store(mine, 0, "Bo", "tuning")
    assert refused.value.reason == "ALARM_RULES_CHANGED"
    assert refused.value.metadata == {"revision": "1", "by": "Ada"}
    assert names(rules) == ["theirs"]
    stored = await desk.store(mine, 1, "Bo", "tuning")
    assert (stored.number, names(rules)) == (2, ["mine"])


async def test_rules_are_not_evaluated_until_the_store_is_read(file: Path) -> None:
    """A scorer that starts would else clear the alarms of stored rules, and raise those of the file."""
    looked: list[int] = []

    class Journal:
        async def read_after(self, number: int) -> list[ingestion_pb2.Event]:
            looked.append(number)
            return []

    async def view() -> None:
        return None

    rules = FollowedRules(file, with_store=True)
    evaluation = AlarmEvaluation(rules, Journal(), None, watch=None, view=view)  # type: ignore[arg-type]
    await evaluation.run_round()
    assert looked == []
    rules.follow_revision(None)
    await evaluation.run_round()
    assert looked == [0]
