"""A simulation of how machines are divided among 200 scorers while pods join, leave, are killed and are cut off.

Each scorer divides the machines by the members that it knows. It learns of them from the name service at its own
moments, and drops one that does not answer its health checks. The simulation divides with the function of the product
and has the times of its membership, in virtual time. It reports which share of the machines moves, how long machines
are not scored, and how much work is done twice. See docs/scale.md.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aurum.prediction.fleet.membership import CHECK_SECONDS, DECIDE_SECONDS, FAILURES, RESOLVE_SECONDS
from aurum.readings.machine_shares import name_hash, owners_of
from benchmarks.harness import Goal, report

_STEP = DECIDE_SECONDS  # virtual seconds
_NAME_SERVICE_SECONDS = 2.0  # from a change until the name service answers with it, where the cluster notices it
_EVENT_SECONDS = 30.0  # between two events
_LATE = 10.0  # seconds without scoring that are too long
EVENTS = ("join", "leave", "kill", "lost node", "partition", "rolling update")


@dataclass(slots=True)
class Scorer:
    """A scorer.

    Attributes:
        name: Its address.
        alive: Whether it scores.
        listed_from: When the name service begins to list it.
        listed_until: When the name service stops.
        island: Scorers reach only those of the same island.
        members: Those among which it divides the machines.
        next_resolve: When it asks the name service next.
        next_check: When it checks the others next.
        listed: Those that the name service has named.
        failures: Health checks in a row that each of them has failed. A new one has to answer first.
    """

    name: str
    listed_from: float
    next_resolve: float
    next_check: float
    alive: bool = True
    listed_until: float = float("inf")
    island: int = 0
    members: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    failures: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What an event did. `moved` is a share of the machines, `twice` of all scoring, the rest in seconds."""

    event: str
    moved: float
    longest_unscored: float
    unscored_too_long: float
    twice: float


class Plant:
    """The scorers and the machines, in virtual time."""

    def __init__(self, scorers: int, machines: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._hashes = np.array([name_hash(f"machine-{number}") for number in range(machines)], np.uint64)
        self._count = 0
        self.scorers: dict[str, Scorer] = {}
        self._owners: dict[frozenset[str], dict[str, npt.NDArray[np.intp]]] = {}
        for _ in range(scorers):
            self.join(0.0)
        everyone = frozenset(self.scorers)
        for each in self.scorers.values():
            each.members = each.listed = everyone
            each.failures = dict.fromkeys(everyone, 0.0)

    def join(self, listed_from: float) -> None:
        """Adds a scorer that the name service lists from a moment on."""
        self._count += 1
        name = f"10.1.{self._count // 250}.{self._count % 250}:50052"
        resolve = self.now + self.random.uniform(0, RESOLVE_SECONDS)
        check = self.now + self.random.uniform(0, CHECK_SECONDS)
        self.scorers[name] = Scorer(name, listed_from, resolve, check)

    def running(self) -> list[Scorer]:
        """The scorers that score."""
        return [each for each in self.scorers.values() if each.alive]

    def shares(self, members: frozenset[str]) -> dict[str, npt.NDArray[np.intp]]:
        """The machines of each member."""
        known = self._owners.get(members)
        if known is None:
            names = sorted(members)
            owners = owners_of(self._hashes, names)
            order = np.argsort(owners, kind="stable")
            cuts = np.searchsorted(owners[order], np.arange(len(names) + 1))
            known = {name: order[cuts[place] : cuts[place + 1]] for place, name in enumerate(names)}
            self._owners[members] = known
        return known

    def times_scored(self) -> npt.NDArray[np.int64]:
        """How many scorers score each machine at present."""
        counts = np.zeros(len(self._hashes), np.int64)
        for each in self.running():
            if each.name in each.members:
                counts[self.shares(each.members)[each.name]] += 1
        return counts

    def step(self) -> None:
        """Goes on in time."""
        self.now += _STEP
        for each in self.running():
            if self.now >= each.next_resolve:
                each.next_resolve += RESOLVE_SECONDS
                each.listed = frozenset(
                    other.name for other in self.scorers.values() if other.listed_from <= self.now < other.listed_until
                )
                each.failures = {name: each.failures.get(name, FAILURES) for name in each.listed}
            if self.now >= each.next_check:
                each.next_check += CHECK_SECONDS
                for name in each.listed:
                    other = self.scorers[name]
                    answers = other.alive and other.island == each.island
                    # A check that gets no answer takes its timeout in addition to the pause before the next one
                    each.failures[name] = 0.0 if answers else each.failures[name] + 0.5
            self._decide(each)

    def _decide(self, scorer: Scorer) -> None:
        """Takes those as members that answer. A scorer that the name service does not list has no share."""
        alive = {name for name in scorer.listed if scorer.failures[name] < FAILURES and name != scorer.name}
        if scorer.name in scorer.listed:
            alive.add(scorer.name)
        if alive:
            scorer.members = frozenset(alive)

    def forget_gone(self) -> None:
        """Removes scorers that are gone, and divisions that no longer occur."""
        listed = frozenset[str]().union(*(each.listed for each in self.running()))
        self.scorers = {name: each for name, each in self.scorers.items() if each.alive or name in listed}
        used = {each.members for each in self.running()}
        self._owners = {members: shares for members, shares in self._owners.items() if members in used}


def begin(plant: Plant, event: str) -> None:
    """Begins an event."""
    chosen = plant.random.sample(plant.running(), 20)
    if event == "join":
        plant.join(plant.now + _NAME_SERVICE_SECONDS)
    elif event == "leave":  # is no longer listed before it stops
        chosen[0].listed_until = plant.now
    elif event == "kill":
        chosen[0].alive, chosen[0].listed_until = False, plant.now + _NAME_SERVICE_SECONDS
    elif event == "lost node":  # the name service goes on listing its pods for most of a minute
        for each in chosen[:5]:
            each.alive, each.listed_until = False, plant.now + 40.0
    elif event == "partition":
        for each in chosen:
            each.island = 1
    elif event == "rolling update":
        for each in chosen:
            each.alive, each.listed_until = False, plant.now + _NAME_SERVICE_SECONDS
            plant.join(plant.now + _NAME_SERVICE_SECONDS + plant.random.uniform(2, 5))


def follow(plant: Plant, event: str, seconds: float) -> Outcome:
    """Follows an event to its end."""
    before = _owner_of_each(plant)
    begin(plant, event)
    start = plant.now
    stopping = [each for each in plant.running() if each.listed_until <= plant.now]
    unscored = np.zeros(len(before))
    longest = np.zeros(len(before))
    scored = twice = 0
    while plant.now < start + seconds:
        plant.step()
        for each in stopping:
            if plant.now >= start + 2 * RESOLVE_SECONDS:  # its grace period
                each.alive = False
        if event == "partition" and plant.now >= start + seconds / 2:
            for each in plant.running():
                each.island = 0
        counts = plant.times_scored()
        unscored = np.where(counts == 0, unscored + _STEP, 0.0)
        longest = np.maximum(longest, unscored)
        scored += int(counts.sum())
        twice += int((counts - 1).clip(0).sum())
    after = _owner_of_each(plant)
    moved = float(np.mean([one != other for one, other in zip(before, after, strict=True)]))
    plant.forget_gone()
    return Outcome(event, moved, float(longest.max()), float((longest > _LATE).sum()), twice / scored)


def _owner_of_each(plant: Plant) -> list[str]:
    owners = [""] * len(plant.times_scored())
    for each in plant.running():
        if each.name in each.members:
            for machine in plant.shares(each.members)[each.name].tolist():
                owners[machine] = each.name
    return owners


def simulate(scorers: int, machines: int, rounds: int, seed: int = 1) -> list[Outcome]:
    """Runs each event several times."""
    plant = Plant(scorers, machines, seed)
    return [follow(plant, event, _EVENT_SECONDS) for _ in range(rounds) for event in EVENTS]


def _worst(outcomes: Sequence[Outcome]) -> dict[str, float]:
    return {
        "moved": max(each.moved for each in outcomes),
        "longest_unscored_seconds": max(each.longest_unscored for each in outcomes),
        "machines_unscored_too_long": max(each.unscored_too_long for each in outcomes),
        "scored_twice": max(each.twice for each in outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    scorers, machines, rounds = (50, 2_000, 1) if quick else (200, 20_000, 5)
    outcomes = simulate(scorers, machines, rounds)
    by_event = {event: _worst([each for each in outcomes if each.event == event]) for event in EVENTS}
    worst = _worst(outcomes)
    report(
        "division",
        {
            "longest_unscored_seconds": Goal(worst["longest_unscored_seconds"], _LATE, at_most=True),
            "machines_unscored_longer_than_10_s": Goal(worst["machines_unscored_too_long"], 0, at_most=True),
            "moved_by_one_kill_over_its_share": Goal(by_event["kill"]["moved"] * scorers, 1.3, at_most=True),
        },
        {"scorers": scorers, "machines": machines, "events": by_event},
    )


if __name__ == "__main__":
    main()
