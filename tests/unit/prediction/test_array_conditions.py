"""Alarm rules that are evaluated for all machines at once change as those that are evaluated machine by machine."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.rules import AlarmRule
from aurum.prediction.fleet.array_conditions import ArrayCondition, Observations

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
CONDITIONS: dict[str, dict[str, Any]] = {
    "risk": {"risk": {"above": 0.5, "deadband": 0.2}},
    "rul": {"rul": {"below": 0.5, "deadband": 0.2}},
    "anomaly": {"anomaly": {"above": 0.5}},
    "unusual": {"anomaly": {"beyond_threshold": True, "deadband": 0.2}},
    "sensor": {"sensor": {"sensor": "x", "below": 0.5, "deadband": 0.2}},
    "rate": {"rate": {"sensor": "x", "above": 0.1, "deadband": 0.2, "over_seconds": 5}},
    "stale": {"stale": {"after_seconds": 4}},
}


def told(change: tuple[bool, float | None, int] | None) -> tuple[bool, float, int] | None:
    return None if change is None else (change[0], -1.0 if change[1] is None else change[1], change[2])


@pytest.mark.parametrize("kind", CONDITIONS)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), on_delay=st.sampled_from([0, 3]), off_delay=st.sampled_from([0, 7]))
def test_array_and_single_conditions_agree(kind: str, seed: int, on_delay: int, off_delay: int) -> None:
    chance = np.random.default_rng(seed)
    rule = AlarmRule.model_validate(
        {
            "name": kind,
            "text": kind,
            "on_delay_seconds": on_delay,
            "off_delay_seconds": off_delay,
            **CONDITIONS[kind],
        }
    )
    machines = 7
    together = ArrayCondition(rule)
    together.extend(machines)
    alone = [RuleCondition(rule) for _ in range(machines)]
    times, values = np.zeros(machines, np.int64), np.full(machines, np.nan)
    predictions = np.full((3, machines), np.nan)
    predicted = np.zeros(machines, np.int64)
    thresholds = np.where(chance.random(machines) < 0.3, 0.0, chance.random(machines))
    for turn in range(30):
        at = NOW + turn * 2 * SECOND
        read = chance.random(machines) < 0.6
        times[read] = at - chance.integers(0, 3 * SECOND, machines)[read]
        values[read] = np.where(chance.random(machines) < 0.1, np.nan, chance.random(machines))[read]
        scored = chance.random(machines) < 0.6
        predictions[:, scored] = np.where(chance.random((3, machines)) < 0.1, np.nan, chance.random((3, machines)))[
            :, scored
        ]
        predicted[scored] = at - SECOND
        wanted = chance.random(machines) < 0.9
        observations = Observations(at, times, {"x": (times, values)}, *predictions, predicted, thresholds)
        changes = together.evaluate(observations, wanted)
        found = {
            machine: (bool(changes.alarming[index]), float(changes.values[index]), int(changes.times[index]))
            for index, machine in enumerate(changes.machines.tolist())
        }
        for machine in range(machines):
            risk, rul, anomaly = (None if np.isnan(each) else float(each) for each in predictions[:, machine])
            latest = {"x": (int(times[machine]), float(values[machine]))} if times[machine] else {}
            seen = Observation(
                at,
                int(times[machine]),
                latest,
                False,
                risk,
                rul,
                anomaly,
                int(predicted[machine]),
                float(thresholds[machine]),
            )
            expected = told(alone[machine].evaluate(seen)) if wanted[machine] else None
            actual = found.get(machine)
            assert (actual and (actual[0], np.nan_to_num(actual[1], nan=-1.0), actual[2])) == expected
            assert together.alarming[machine] == alone[machine].alarming
            assert bool(together.since[machine]) == (alone[machine].waits and rule.stale is None) or rule.stale
