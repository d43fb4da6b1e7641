"""Delays of alarm rules go on after a start: since when a condition holds follows from past readings."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.rules import AlarmRule
from aurum.prediction.fleet.array_conditions import ArrayCondition, Observations
from aurum.prediction.fleet.delay_history import resume

NOW = 1_700_000_000_000_000
SECOND = 1_000_000
CONDITIONS: dict[str, dict[str, Any]] = {
    "risk": {"risk": {"above": 0.5, "deadband": 0.1}},
    "sensor": {"sensor": {"sensor": "x", "above": 0.5, "deadband": 0.1}},
    "rate": {"rate": {"sensor": "x", "above": 0.1, "over_seconds": 5}},
}


@pytest.mark.parametrize("kind", CONDITIONS)
@given(seed=st.integers(0, 2**32), alarming=st.booleans())
def test_resumed_delays_equal_those_that_ran_on(kind: str, seed: int, alarming: bool) -> None:
    chance = np.random.default_rng(seed)
    rule = AlarmRule.model_validate(
        {"name": kind, "text": "x", "on_delay_seconds": 1e9, "off_delay_seconds": 1e9, **CONDITIONS[kind]}
    )
    ran_on = RuleCondition(rule, alarming)
    times = NOW + np.cumsum(chance.integers(1, 9 * SECOND, 20))
    values = np.repeat(chance.random(10), 2)
    past = [
        Observation(at, at, {"x": (at, value)}, risk=value, predicted_us=at)
        for at, value in zip(times.tolist(), values.tolist(), strict=True)
    ]
    for each in past:
        ran_on.evaluate(each)
    condition = ArrayCondition(rule)
    condition.extend(1)
    condition.reset(0, alarming=alarming)
    latest, value = times[-1:], values[-1:]
    nothing = np.full(1, np.nan)
    observations = Observations(
        int(latest[0]), latest, {"x": (latest, value)}, value, nothing, nothing, latest, nothing
    )
    condition.evaluate(observations, np.ones(1, np.bool_))
    resume(condition, 0, past)
    assert condition.since[0] == ran_on.since
    if ran_on.before is not None:
        assert (condition.before_time[0], condition.before_value[0]) == ran_on.before
