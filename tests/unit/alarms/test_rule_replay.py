"""The replay of stored values raises what an evaluation of every moment raises."""

import random

import numpy as np
import pytest

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.replay import RuleReplay
from aurum.alarms.rules import AlarmRule

SECOND = 1_000_000
START = 1_000 * SECOND
CASES = [
    {"sensor": {"sensor": "heat", "above": 80}},
    {"sensor": {"sensor": "heat", "above": 80, "deadband": 5}, "on_delay_seconds": 7, "off_delay_seconds": 11},
    {"sensor": {"sensor": "heat", "below": 70, "deadband": 10}, "on_delay_seconds": 3},
    {"rate": {"sensor": "heat", "above": 10, "over_seconds": 10}, "on_delay_seconds": 12},
    {"rate": {"sensor": "heat", "below": -100, "over_seconds": 1}},
    {"stale": {"after_seconds": 5}},
    {"stale": {"after_seconds": 4}, "on_delay_seconds": 3, "off_delay_seconds": 6},
]


def made(case: dict[str, object]) -> AlarmRule:
    return AlarmRule.model_validate({"name": "a", "text": "b", **case})


def readings(seed: int, count: int) -> tuple[list[int], list[float]]:
    """Readings at whole seconds with gaps; values wander, and some are missing."""
    chance = random.Random(seed)
    at, value = START, 75.0
    times, values = [], []
    for _ in range(count):
        at += SECOND * chance.choice([1, 1, 1, 2, 5, 9, 20])
        value += chance.uniform(-9, 9) - (value - 75) / 20
        times.append(at)
        values.append(float("nan") if chance.random() < 0.05 else value)
    return times, values


def raised_at_every_moment(rule: AlarmRule, times: list[int], values: list[float], end: int) -> int:
    """Evaluates the rule each second, as a scorer does."""
    condition, raised, index = RuleCondition(rule), 0, -1
    for at in range(times[0], end, SECOND):
        while index + 1 < len(times) and times[index + 1] <= at:
            index += 1
        latest = {"heat": (times[index], values[index])}
        moments = [at, at + 1] if rule.stale is not None and at + 1 < end else [at]  # silence must exceed its limit
        for moment in moments:
            change = condition.evaluate(Observation(moment, times[index], latest))
            raised += bool(change and change[0])
    return raised


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [1, 17, 1000])
def test_replay_equals_evaluation_of_every_moment(case: dict[str, object], chunk: int) -> None:
    rule, total = made(case), 0
    for seed in range(12):
        times, values = readings(seed, 300)
        end = times[-1] + 30 * SECOND
        replay = RuleReplay(rule)
        for first in range(0, len(times), chunk):
            part = slice(first, first + chunk)
            if rule.stale is not None:
                replay.add_times(np.array(times[part], np.int64))
            else:
                replay.add_readings(np.array(times[part], np.int64), np.array(values[part]))
        replay.finish(end)
        expected = raised_at_every_moment(rule, times, values, end)
        assert replay.raised == expected, seed
        assert (replay.values, replay.first_us) == (len(times), times[0])
        total += expected
    assert total > 5


def test_replayed_predictions_wait_for_the_delay() -> None:
    rule = made({"risk": {"above": 0.7}, "on_delay_seconds": 90})
    replay = RuleReplay(rule)
    risks = [0.9, 0.1, 0.9, None, 0.8, 0.2, 0.9]  # one a minute: beyond for 60 s, then for 180 s, then until the end
    for minute, risk in enumerate(risks):
        at = START + minute * 60 * SECOND
        replay.add_prediction(Observation(at, at, {}, risk=risk, predicted_us=at))
    replay.finish(START + 20 * 60 * SECOND)
    assert replay.raised == 2
