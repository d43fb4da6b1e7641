"""The past of a simulated fleet: the same for the same seed, consistent, and continued by the fleet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms.rules import load_rules
from aurum.readings.history import FAULT, OPERATING_HOURS
from aurum_sim.fleet import Fleet
from aurum_sim.past import STEP_US, GroupPast, past_of
from aurum_sim.past_alarms import OPERATOR, past_alarms

END_US = 1_800_000_000_000_000


def past(machines: int, seed: int, hours: float = 24.0, failures: int = 1) -> tuple[Fleet, list[GroupPast]]:
    fleet = Fleet(machines, seed, "test")
    return fleet, past_of(fleet, END_US, hours, failures, seed)


def column(group: GroupPast, sensor: str) -> np.ndarray:  # type: ignore[type-arg]
    return group.values[:, :, list(group.sensors).index(sensor)]


@settings(max_examples=8)
@given(machines=st.integers(1, 15), seed=st.integers(0, 2**32), hours=st.sampled_from([1.0, 24.0, 60.5]))
def test_same_seed_gives_the_same_past(machines: int, seed: int, hours: float) -> None:
    first, again = past(machines, seed, hours)[1], past(machines, seed, hours)[1]
    for one, other in zip(first, again, strict=True):
        assert one.values.tobytes() == other.values.tobytes()
        assert one.present.tobytes() == other.present.tobytes()
        assert one.stops == other.stops


@settings(max_examples=8)
@given(machines=st.integers(6, 30), seed=st.integers(0, 2**32))
def test_lives_of_a_past_end_only_where_stops_tell(machines: int, seed: int) -> None:
    """The life counter rises by the clock, stands still in a fault and falls to 0 at an overhaul; wear only grows."""
    _, groups = past(machines, seed, 168.0)
    failures = 0
    for group in groups:
        assert (np.diff(group.times) == STEP_US).all()
        assert group.times[-1] == END_US
        for machine, stops in enumerate(group.stops):
            hours, fault = column(group, OPERATING_HOURS)[:, machine], column(group, FAULT)[:, machine]
            renewed = [int(np.searchsorted(group.times, stop.from_us)) for stop in stops if stop.renewed]
            steps = np.diff(hours)
            assert np.flatnonzero(steps < 0).tolist() == [at - 1 for at in renewed]
            works = (steps > 0) & (fault[:-1] == 0) & (fault[1:] == 0)
            assert np.allclose(steps[works], 1 / 60, atol=0.02)
            assert (hours >= 0).all()
            down = [stop for stop in stops if stop.failed]
            failures += len(down)
            expected = np.zeros(len(fault), bool)
            for stop in down:
                expected |= (group.times >= stop.from_us) & (group.times < (stop.to_us or 0))
            assert (fault.astype(bool) == expected).all()
    assert failures <= 1


def test_fleet_goes_on_from_the_end_of_its_past() -> None:
    fleet, groups = past(12, 7)
    ended = {
        machine_id: column(group, OPERATING_HOURS)[-1, machine]
        for group in groups
        for machine, machine_id in enumerate(group.machine_ids)
    }
    for batch in fleet.advance(0.01, [END_US + 1]):
        for series in batch.message.series:
            if series.sensor == OPERATING_HOURS:
                assert series.values[0] == pytest.approx(ended[series.machine_id] + 0.01)


def test_past_of_the_demo_plant_has_one_failure_with_its_alarms() -> None:
    """The machine that failed vibrated beyond the limit before; its alarms are those of the rules in force."""
    fleet, groups = past(40, 7, 168.0)
    kinds = [group.kind.name for group, _ in fleet.groups]
    failed = [
        (machine_id, stop.mode)
        for group in groups
        for machine_id, stops in zip(group.machine_ids, group.stops, strict=True)
        for stop in stops
        if stop.failed
    ]
    assert failed == [("pump-007", "bearing")]
    alarms = past_alarms(list(zip(kinds, groups, strict=True)), load_rules())
    of_failed = [(each.rule, each.kind) for each in alarms if each.machine_id == "pump-007"]
    assert of_failed.index(("vibration_high", "raised")) < of_failed.index(("stopped", "raised"))
    assert of_failed[-1][1] in ("cleared", "acknowledged", "unsuppressed")
    assert [each.at_us for each in alarms] == sorted(each.at_us for each in alarms)
    assert {each.by for each in alarms if each.kind == "acknowledged"} == {OPERATOR}
    raised = sum(each.kind == "raised" for each in alarms)
    assert sum(each.kind == "acknowledged" for each in alarms) <= raised
