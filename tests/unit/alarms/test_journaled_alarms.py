"""Alarms as a fold of their journal: replicas that see, write and read in any order show the same in the end."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms import journal as alarm_journal
from aurum.alarms.followed_rules import FollowedRules
from aurum.alarms.journal import to_event
from aurum.alarms.journaled import JournaledAlarms, journal_key
from aurum.alarms.lifecycle import Alarm, Transition, apply_transition
from aurum.api.alarm_service import AlarmService
from aurum.v1 import ingestion_pb2

KINDS = ("raised", "cleared", "acknowledged", "shelved", "unshelved", "suppressed", "unsuppressed")
transitions = st.builds(
    Transition,
    kind=st.sampled_from(KINDS),
    machine_id=st.sampled_from("ab"),
    rule=st.just("r"),
    at_us=st.integers(1, 20),
    by=st.sampled_from(["", "Ada"]),
    until_us=st.integers(0, 30),
)


def folded(journal: list[Transition]) -> dict[str, Alarm]:
    """What the journal says: each entry once, in its order."""
    alarms: dict[str, Alarm] = {}
    known: set[str] = set()
    for each in journal:
        if journal_key(each) in known:
            continue
        known.add(journal_key(each))
        alarms[each.alarm_id] = apply_transition(alarms.get(each.alarm_id, Alarm(each.machine_id, each.rule)), each)
    return alarms


def read_all(alarms: JournaledAlarms, journal: list[Transition]) -> None:
    for number, entry in enumerate(journal, start=1):
        alarms.apply_entry(number, entry, 0)


@given(st.lists(st.tuples(st.integers(0, 2), transitions, st.booleans()), max_size=25), st.data())
@settings(deadline=None)
def test_replicas_converge_to_the_journal(steps: list[tuple[int, Transition, bool]], data: st.DataObject) -> None:
    """Three replicas detect transitions, write some of them and sometimes read the journal; in the end all agree."""
    replicas = [JournaledAlarms(100) for _ in range(3)]
    unwritten: list[list[Transition]] = [[], [], []]
    journal: list[Transition] = []

    def write(replica: int) -> None:
        journal.extend(unwritten[replica])
        unwritten[replica].clear()

    for replica, transition, writes in steps:
        if replicas[replica].apply_own(transition) is not None:
            unwritten[replica].append(transition)
        if writes:
            write(replica)
        if data.draw(st.booleans()):
            read_all(replicas[data.draw(st.integers(0, 2))], journal)
    for replica in range(3):
        write(replica)
    expected = folded(journal)
    for alarms in (*replicas, JournaledAlarms(100)):
        read_all(alarms, journal)
        assert {alarm.alarm_id: alarm for alarm in alarms} == expected


def test_alarms_that_are_over_make_room_first() -> None:
    """Of too many alarms the first that is over is dropped, unless it is shelved; else the one that changed first."""
    alarms = JournaledAlarms(4)
    journal = [
        Transition("raised", "active", "r", 1),
        *(Transition(kind, "shelved", "r", 2) for kind in ("raised", "acknowledged", "cleared")),
        Transition("shelved", "shelved", "r", 3, until_us=100),
        *(Transition(kind, "over", "r", 4) for kind in ("raised", "acknowledged", "cleared")),
        Transition("cleared", "never", "r", 5),
        *(Transition("raised", f"new-{number}", "r", 6 + number) for number in range(3)),
    ]
    kept = []
    for number, entry in enumerate(journal, start=1):
        alarms.apply_entry(number, entry, 50)
        kept.append({alarm.machine_id for alarm in alarms})
    assert kept[-4] == {"active", "shelved", "over", "never"}
    assert kept[-3] == {"active", "shelved", "never", "new-0"}
    assert kept[-2] == {"active", "shelved", "new-0", "new-1"}
    assert kept[-1] == {"shelved", "new-0", "new-1", "new-2"}


def test_active_alarms_cost_no_search_for_one_to_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many active alarms as are kept, another one does not look at all of them."""
    alarms, looks = JournaledAlarms(500), []
    state = Alarm.state
    monkeypatch.setattr(Alarm, "state", lambda alarm, now_us: looks.append(alarm) or state(alarm, now_us))
    for number in range(1000):
        alarms.apply_entry(number, Transition("raised", f"m-{number}", "r", number + 1), 0)
    assert [alarm.machine_id for alarm in alarms] == [f"m-{number}" for number in range(999, 499, -1)]
    assert len(looks) < 1000


def test_alarm_raised_anew_by_a_late_device_stays_unacknowledged() -> None:
    """The order is the journal's: an operator whose clock is ahead acknowledges nothing that comes later."""
    journal = [
        Transition("raised", "m", "r", 100),
        Transition("acknowledged", "m", "r", 500, by="Ada"),
        Transition("cleared", "m", "r", 200),
        Transition("raised", "m", "r", 300),
    ]
    alarms = JournaledAlarms(10)
    read_all(alarms, journal)
    (alarm,) = alarms
    assert alarm.state(600) == "unacknowledged"


def test_what_was_seen_takes_its_place_in_the_journal() -> None:
    """An acknowledgement that the journal has before what was seen here does not acknowledge that."""
    alarms = JournaledAlarms(10)
    alarms.apply_entry(1, Transition("raised", "m", "r", 1), 0)
    alarms.apply_entry(2, Transition("cleared", "m", "r", 2), 0)
    raised = Transition("raised", "m", "r", 3)
    assert alarms.apply_own(raised) is not None
    assert alarms.apply_own(raised) is None
    alarms.apply_entry(3, Transition("acknowledged", "m", "r", 9, by="Ada"), 0)
    (alarm,) = alarms
    assert alarm.state(10) == "unacknowledged"
    alarms.apply_entry(4, raised, 0)
    assert [each.state(10) for each in alarms] == ["unacknowledged"]


def test_what_is_never_written_still_counts() -> None:
    alarms = JournaledAlarms(10)
    raised = Transition("raised", "m", "r", 3)
    alarms.apply_own(raised)
    alarms.settle(raised)
    alarms.apply_entry(1, Transition("acknowledged", "m", "r", 9, by="Ada"), 0)
    assert [each.state(10) for each in alarms] == ["acknowledged"]


def test_alarms_that_are_over_are_forgotten_first() -> None:
    alarms = JournaledAlarms(3)
    for number, machine in enumerate("abcd", start=1):
        alarms.apply_entry(number, Transition("raised", machine, "r", number), 0)
        if machine == "b":
            alarms.apply_entry(10, Transition("acknowledged", "b", "r", 5), 0)
            alarms.apply_entry(11, Transition("cleared", "b", "r", 6), 0)
    assert {alarm.machine_id for alarm in alarms} == {"a", "c", "d"}


def test_entry_read_twice_counts_once_while_remembered() -> None:
    """Of the keys that were read, the oldest are forgotten first, so a page that is read again changes nothing."""
    alarms = JournaledAlarms(3)
    page = [Transition(kind, "m", "r", at) for at, kind in enumerate(["raised", "cleared"] * 4, start=1)]
    for number, entry in enumerate(page, start=1):
        alarms.apply_entry(number, entry, 0)
    assert alarms.apply_entry(7, page[6], 0) is None
    assert [alarm.active for alarm in alarms] == [False]


class Journal:
    """An ingestion that keeps events, and gives them by their numbers."""

    def __init__(self) -> None:
        self.events: dict[tuple[int, str], ingestion_pb2.Event] = {}
        self.overlap = 0

    async def record_events(self, events: list[ingestion_pb2.Event]) -> None:
        for event in events:
            event.number = len(self.events) + 1
            self.events.setdefault((event.at_us, event.id), event)

    async def list_events_after(self, kind: str, number: int, most: int) -> list[ingestion_pb2.Event]:
        assert kind == "alarm"
        return [event for event in self.events.values() if event.number > number - self.overlap][-most:]


@pytest.fixture
def journal() -> Journal:
    return Journal()


def desk(journal: Journal) -> AlarmService:
    plant: Any = SimpleNamespace(get_machine=lambda machine_id: None)
    return AlarmService(journal, plant, FollowedRules(None), clock=lambda: 10_000.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("silent", [900, 1100, 3000])
async def test_restart_knows_every_alarm_of_one_moment(journal: Journal, silent: int) -> None:
    """However many alarms were raised at one moment, a desk that starts knows them, and the shelving of before."""
    raised = [Transition("raised", f"m-{number:05}", "silent", 9_000_000_000) for number in range(silent)]
    await journal.record_events(
        [*map(to_event, [Transition("raised", "pump", "hot", 8_000_000_000, value=0.9), *raised])]
    )
    first = desk(journal)
    await first.read_journal()
    await first.shelve("pump~hot", 20_000_000_000, "Ada", "ordered")
    again = desk(journal)
    await again.read_journal()
    assert len(list(again.alarms)) == silent + 1
    shelved = again.find("pump~hot")
    assert shelved is not None
    assert (shelved.state(10_000_000_000), shelved.shelved_by) == ("shelved", "Ada")


async def test_two_desks_take_over_what_the_other_did(journal: Journal) -> None:
    one, other = desk(journal), desk(journal)
    await one.read_journal()
    await journal.record_events([to_event(Transition("raised", "m", "hot", 5_000_000))])
    await other.read_journal()
    await other.acknowledge("m~hot", "Ada")
    await one.read_journal()
    for each in (one, other):
        found = each.find("m~hot")
        assert found is not None
        assert found.acknowledged_by == "Ada"


async def test_entry_that_is_read_again_is_not_decoded_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read overlaps the one before, because the replicas of a store number entries by their own clocks."""
    await journal.record_events([to_event(Transition("raised", "m", "hot", 5_000_000))])
    monkeypatch.setattr(journal, "overlap", 1000)
    decoded: list[str] = []
    decode = alarm_journal.decode
    monkeypatch.setattr(alarm_journal, "decode", lambda entry, name: decoded.append(name) or decode(entry, name))
    alarms = desk(journal)
    for _ in range(3):
        await alarms.read_journal()
    assert decoded == ["m~hot~raised at 5000000"]
