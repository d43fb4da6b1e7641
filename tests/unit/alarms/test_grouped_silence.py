"""Machines that fall silent together are in one alarm of their gateway or site; each is in exactly one alarm."""

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurum.alarms import journal
from aurum.alarms.lifecycle import OTHERS_RETURNED, RULE_REMOVED, Alarm, Transition
from aurum.alarms.rules import AlarmRules
from aurum.prediction.fleet.alarm_states import AlarmStates, FleetView, watched_sensors
from aurum.prediction.fleet.array_conditions import Observations
from aurum.prediction.fleet.silence_groups import Senders

START = 1_790_000_000_000_000
SECOND = 1_000_000
LIMIT = 60
SILENT: dict[str, Any] = {"name": "silent", "text": "No readings", "stale": {"after_seconds": LIMIT}}
OTHER: dict[str, Any] = {"name": "other", "text": "Other", "sensor": {"sensor": "x", "above": 1e9}}


def rules(*each: dict[str, Any]) -> AlarmRules:
    return AlarmRules.model_validate({"rules": each})


class Site:
    """Machines that send once a second, each through its gateway, and scorers that share them through one journal."""

    def __init__(self, gateways: list[str], sites: list[str] | None = None, scorers: int = 1) -> None:
        self.ids = [f"m{number}" for number in range(len(gateways))]
        self.gateways, self.sites = gateways, sites or [""] * len(gateways)
        self.connected = set(gateways)
        self.sending = set(range(len(gateways)))
        self.at_us = START
        self.last_seen = np.full(len(gateways), START)
        self.rules = rules(SILENT)
        self.scorers = [AlarmStates(self.rules) for _ in range(scorers)]
        self.journal: list[Transition] = []
        self._keys: set[str] = set()

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.at_us += SECOND
            for machine in self.sending:
                self.last_seen[machine] = self.at_us
            for number in range(len(self.scorers)):
                self.round(number)

    def round(self, number: int) -> None:
        """One scorer reads the journal, evaluates, and writes what it detected."""
        states = self.scorers[number]
        first = states.alarms.last_number
        states.read([*enumerate(self.journal[first:], first + 1)], self.at_us)
        states.evaluate(self.view(number))
        for transition in list(states.pending):
            event = journal.to_event(transition)
            read = journal.from_event(event)
            assert read == transition
            if journal.key_of(event) not in self._keys:
                self._keys.add(journal.key_of(event))
                self.journal.append(read)
        states.written(len(states.pending))

    def view(self, number: int) -> FleetView:
        count = len(self.ids)
        nothing, never = np.full(count, np.nan), np.zeros(count, np.int64)
        sensors = dict.fromkeys(watched_sensors(self.rules), (never, nothing))
        observations = Observations(
            self.at_us, self.last_seen.copy(), sensors, nothing, nothing, nothing, never, np.zeros(count)
        )
        names, places = sorted(set(self.gateways)), sorted(set(self.sites))
        senders = Senders(
            names,
            np.array([names.index(each) for each in self.gateways]),
            places,
            np.array([places.index(each) for each in self.sites]),
            frozenset(self.connected),
        )
        mine = np.arange(count) % len(self.scorers) == number
        return FleetView(self.ids, [""], never, mine, observations, senders)

    def silence(self, *machines: int) -> None:
        self.sending -= set(machines)

    def resume(self, *machines: int) -> None:
        self.sending |= set(machines)

    @property
    def active(self) -> list[Alarm]:
        return [alarm for alarm in self.scorers[0].alarms if alarm.active]

    @property
    def parents(self) -> list[Alarm]:
        return [alarm for alarm in self.active if alarm.is_parent]

    def open(self) -> list[str]:
        """What an operator sees: the machines and groups with an alarm that is not suppressed."""
        return sorted(
            alarm.gateway or alarm.site if alarm.is_parent else alarm.machine_id
            for alarm in self.active
            if alarm.state(self.at_us) != "suppressed"
        )

    def check(self) -> None:
        """Each machine that has been silent for long is in exactly one alarm, and no other machine is in one."""
        active = {alarm.alarm_id: alarm for alarm in self.active}
        for number, machine_id in enumerate(self.ids):
            silent = (self.at_us - self.last_seen[number]) / SECOND
            alarm = active.get(f"{machine_id}~silent")
            if silent > LIMIT + 12:
                assert alarm is not None, (machine_id, silent)
            if silent == 0 and alarm is not None:
                assert alarm.chatters, machine_id  # such an alarm is cleared ten minutes later
            if alarm is not None and alarm.parent:
                assert alarm.parent in active, machine_id
                assert alarm.state(self.at_us) == "suppressed"
        for parent in self.parents:
            # One that chatters is cleared ten minutes later
            assert parent.chatters or any(alarm.parent == parent.alarm_id for alarm in active.values()), parent


def test_machine_that_is_silent_alone_raises_at_once() -> None:
    site = Site(["A"] * 10)
    site.silence(3)
    site.run(LIMIT + 1)
    assert site.open() == ["m3"]
    raised = site.journal[0]
    assert (raised.kind, raised.at_us, raised.gateway) == ("raised", START + LIMIT * SECOND, "A")
    assert len(site.journal) == 1


def test_machines_of_a_gateway_are_in_one_alarm() -> None:
    site = Site(["A"] * 40 + ["B"] * 5)
    site.silence(*range(40))
    site.connected = {"B"}
    site.run(LIMIT + 2)
    assert site.open() == ["A"]
    parent = site.parents[0]
    assert (parent.priority, parent.cause, parent.quantity) == ("high", "gateway_away", "silence")
    assert parent.state(site.at_us) == "unacknowledged"
    under = [alarm for alarm in site.active if alarm.parent == parent.alarm_id]
    assert len(under) == 40
    assert all(alarm.acknowledged and not alarm.chatters for alarm in under)
    kinds = [each.kind for each in site.journal if each.machine_id == "m7"]
    assert kinds == ["suppressed", "raised"]
    site.resume(*range(40))
    site.run(2)
    assert site.active == []
    assert all(alarm.state(site.at_us) == "normal" for alarm in site.scorers[0].alarms if not alarm.is_parent)


def test_cause_says_what_the_gateway_does() -> None:
    for connected, silent, cause in (
        ({"A"}, 6, "gateway_idle"),
        ({"A"}, 4, "gateway_partial"),
        (set(), 6, "gateway_away"),
    ):
        site = Site(["A"] * 6)
        site.connected = connected
        site.silence(*range(silent))
        site.run(LIMIT + 2)
        assert site.parents[0].cause == cause
    nowhere = Site([""] * 6, ["plant"] * 6)
    nowhere.silence(*range(6))
    nowhere.run(LIMIT + 2)
    assert (nowhere.parents[0].cause, nowhere.open()) == ("site", ["plant"])


def test_machines_without_gateway_and_site_are_not_grouped() -> None:
    site = Site([""] * 5)
    site.silence(*range(5))
    site.run(LIMIT + 2)
    assert site.open() == [f"m{number}" for number in range(5)]


def test_machines_that_stay_silent_raise_of_their_own() -> None:
    site = Site(["A"] * 10)
    site.silence(*range(10))
    site.run(LIMIT + 2)
    site.resume(*range(6))
    site.run(LIMIT - 2)
    assert site.open() == ["A"]  # the others have as long as the rule allows
    site.run(4)
    assert site.open() == ["m6", "m7", "m8", "m9"]
    released = [each for each in site.journal if each.kind == "unsuppressed"]
    assert [each.reason for each in released] == [OTHERS_RETURNED] * 4
    assert all(alarm.state(site.at_us) == "unacknowledged" for alarm in site.active)
    site.run(300)
    assert site.open() == ["m6", "m7", "m8", "m9"]  # they are not taken together again
    site.silence(*range(6))
    site.run(LIMIT + 2)
    assert site.open() == ["A", "m6", "m7", "m8", "m9"]


def test_machine_silent_for_long_is_not_put_under_a_parent() -> None:
    site = Site(["A"] * 6)
    site.silence(0)
    site.run(600)
    site.silence(*range(1, 6))
    site.run(LIMIT + 2)
    assert site.open() == ["A", "m0"]


def test_machines_of_two_scorers_are_taken_together() -> None:
    site = Site(["A"] * 4, scorers=2)
    site.silence(*range(4))
    site.run(LIMIT + 15)
    site.check()
    assert site.open() == ["A"]
    assert len(site.parents) == 1
    site.resume(0, 1, 2, 3)
    site.run(4)
    assert site.active == []


def test_machines_whose_parent_was_cleared_are_released() -> None:
    """A scorer that has not read the machines of a new parent may clear it; they do not stay suppressed."""
    site = Site(["A"] * 3)
    site.silence(0, 1, 2)
    site.run(LIMIT + 2)
    site.resume(0)
    site.run(1)
    (parent,) = site.parents
    site.journal.append(Transition("cleared", parent.machine_id, parent.rule, site.at_us))
    site.run(1)
    assert site.open() == ["m1", "m2"]


def flap(site: Site, times: int) -> None:
    """The gateway A is away for as long as raises its alarm, and then back for a minute."""
    for _ in range(times):
        site.silence(*range(len(site.ids)))
        site.run(LIMIT + 2)
        site.resume(*range(len(site.ids)))
        site.run(60)


def raises_of_parent(site: Site) -> int:
    return sum(each.kind == "raised" and each.machine_id.startswith("@") for each in site.journal)


def test_gateway_that_flaps_keeps_one_alarm() -> None:
    site = Site(["A"] * 10)
    flap(site, 2)
    assert (site.open(), raises_of_parent(site)) == ([], 2)
    flap(site, 6)
    assert (site.open(), raises_of_parent(site)) == (["A"], 3)
    (parent,) = site.parents
    assert parent.chatters
    assert [alarm.machine_id for alarm in site.active if not alarm.is_parent] == []
    assert all(not alarm.chatters for alarm in site.scorers[0].alarms if not alarm.is_parent)
    site.run(500)
    assert site.open() == ["A"]
    site.run(60)
    assert site.open() == []


def test_machines_that_outlast_a_flapping_gateway_raise() -> None:
    site = Site(["A"] * 10)
    flap(site, 3)
    site.silence(4)
    site.run(LIMIT + 2)
    assert site.open() == ["A"]  # others may follow it
    site.run(LIMIT + 2)
    assert site.open() == ["A", "m4"]


def test_two_scorers_hold_a_flapping_gateway_together() -> None:
    site = Site(["A"] * 10, scorers=2)
    flap(site, 3)
    site.scorers[1] = AlarmStates(site.rules)
    flap(site, 3)
    site.check()
    assert (site.open(), raises_of_parent(site)) == (["A"], 3)


def test_parent_of_a_removed_rule_is_cleared() -> None:
    site = Site(["A"] * 5)
    site.silence(*range(5))
    site.run(LIMIT + 2)
    site.rules = rules(OTHER)
    site.scorers[0].replace_rules(site.rules)
    site.run(2)
    assert site.active == []
    assert {each.reason for each in site.journal if each.kind == "cleared"} == {RULE_REMOVED}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), scorers=st.sampled_from([1, 1, 2, 3]))
@example(seed=2939, scorers=2)  # a release by a parent ends the chattering of an alarm
def test_each_silent_machine_is_in_exactly_one_alarm(seed: int, scorers: int) -> None:
    chance = np.random.default_rng(seed)
    count = 12
    site = Site(
        [str(chance.choice(["", "A", "B"])) for _ in range(count)],
        [str(chance.choice(["", "north"])) for _ in range(count)],
        scorers,
    )
    for _ in range(25):
        chosen = [each for each in range(count) if chance.random() < 0.3]
        match chance.integers(5):
            case 0:
                site.silence(*chosen)
            case 1:
                site.resume(*chosen)
            case 2:
                gateway = str(chance.choice(["A", "B"]))
                site.silence(*(each for each in range(count) if site.gateways[each] == gateway))
            case 3:
                site.resume(*range(count))
            case 4:
                number = int(chance.integers(scorers))
                site.scorers[number] = AlarmStates(site.rules)  # it is restarted
        site.run(int(chance.choice([1, 5, LIMIT, 2 * LIMIT])))
        site.run(2)  # the scorers have read what the others wrote
        site.round(0)
        site.check()
    site.resume(*range(count))
    site.run(620)  # alarms that chatter are held for ten minutes
    if site.parents:
        site.run(620)  # a parent that chatters is held for ten minutes after the last alarm under it
    assert site.active == []
