"""Replays stored readings or predictions of a machine through the condition of an alarm rule.

The condition is evaluated as scorers do: at each value, and between two values when a delay ends. Values that cannot
change its state are skipped with arrays.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from aurum.alarms.conditions import Observation, RuleCondition
from aurum.alarms.rules import AlarmRule, ValueLimit
from aurum.readings.batch import Timestamps, Values

_US = 1e6
_AFTER_US = 1  # after the limit of silence, which must be exceeded

OnChange = Callable[[bool, float | None, int], None]
_Indexes = NDArray[np.int64]


class RuleReplay:
    """The replay of one rule for one machine. What is added must be later than what was added before.

    Attributes:
        raised: How often the alarm was raised.
        last_us: When it was raised last, in µs since 1970; 0 if never.
        values: How many values were added.
        first_us: Time of the first value in µs since 1970; 0 if there is none.
    """

    def __init__(self, rule: AlarmRule, on_change: OnChange | None = None) -> None:
        """Starts without values.

        Args:
            rule: The rule.
            on_change: Called when the alarm is raised or cleared: whether it is raised, with which value, and when, in
                µs since 1970.
        """
        self._rule = rule
        self._on_change = on_change
        self._condition = RuleCondition(rule)
        self._before: Observation | None = None  # the last one that was added
        self.raised = 0
        self.last_us = 0
        self.values = 0
        self.first_us = 0

    def add_readings(self, times: Timestamps, values: Values) -> None:
        """Adds readings of the rule's sensor, in the order of their times in µs since 1970."""
        self._count(len(times), int(times[0]) if len(times) else 0)
        limit = self._rule.sensor or self._rule.rate
        if limit is None or not len(times):
            return
        changing = None if self._rule.rate is not None else _changing(limit, values)
        index = self._next(0, times, changing)
        while index < len(times):
            if index:
                self._before = _reading(limit.sensor, times, values, index - 1)
            self._observe(_reading(limit.sensor, times, values, index))
            index = self._next(index + 1, times, changing)
        self._before = _reading(limit.sensor, times, values, len(times) - 1)

    def add_times(self, times: Timestamps) -> None:
        """Adds the times of readings of all sensors, sorted, in µs since 1970, for a rule on silence."""
        self._count(len(times), int(times[0]) if len(times) else 0)
        stale = self._rule.stale
        if stale is None or not len(times):
            return
        if self._before is not None:
            times = np.concatenate([[self._before.at_us], times])
        # Only silence, and the first reading after it, change the state
        silences = np.flatnonzero(np.diff(times) > stale.after_seconds * _US)
        for index in silences.tolist():
            self._end_delay(times[: index + 1])
            self._observe_silence(int(times[index]), int(times[index + 1]))
            self._observe(_seen(int(times[index + 1])))
        self._end_delay(times)

    def add_prediction(self, observation: Observation) -> None:
        """Adds a prediction."""
        self._count(1, observation.at_us)
        self._observe(observation)

    def finish(self, end_us: int) -> None:
        """Evaluates the time between the last value and the end, in µs since 1970."""
        if self._before is None:
            return
        if self._rule.stale is not None:
            self._observe_silence(self._before.at_us, end_us)
        else:
            self._wait(end_us)

    def _count(self, values: int, first_us: int) -> None:
        self.values += values
        self.first_us = self.first_us or first_us

    def _next(self, index: int, times: Timestamps, changing: tuple[_Indexes, _Indexes] | None) -> int:
        """Returns the first index from `index` on whose reading may change the state."""
        if changing is None:  # a rate is computed between readings that are far enough apart
            if self._condition.before is None or self._rule.rate is None:
                return index
            due = self._condition.before[0] + self._rule.rate.over_seconds * _US
            return max(index, int(np.searchsorted(times, due)))
        if self._condition.since:
            return index
        candidates = changing[self._condition.alarming]
        place = int(np.searchsorted(candidates, index))
        return int(candidates[place]) if place < len(candidates) else len(times)

    def _observe(self, observation: Observation) -> None:
        self._wait(observation.at_us)
        self._evaluate(observation)
        self._before = observation

    def _wait(self, until_us: int) -> None:
        """Evaluates the last value again at the moment when a running delay ends, if that is before `until_us`."""
        if self._before is None or not self._condition.since:
            return
        delay = self._rule.off_delay_seconds if self._condition.alarming else self._rule.on_delay_seconds
        due = self._condition.since + int(np.ceil(delay * _US))
        if self._before.at_us < due < until_us:
            self._evaluate(_later(self._before, due))

    def _end_delay(self, times: Timestamps) -> None:
        """Clears the alarm if its delay ends while there are readings at these times, without a silence in them."""
        if self._condition.since:
            due = self._condition.since + int(np.ceil(self._rule.off_delay_seconds * _US))
            latest = int(np.searchsorted(times, due, "right")) - 1
            if due <= times[-1] and latest >= 0:
                self._evaluate(_later(_seen(int(times[latest])), due))
        self._before = _seen(int(times[-1]))

    def _observe_silence(self, seen_us: int, until_us: int) -> None:
        """Evaluates the silence between the last reading and the next one, or the end."""
        after = self._rule.stale.after_seconds if self._rule.stale is not None else 0.0
        begins = seen_us + int(after * _US) + _AFTER_US
        for at_us in (begins, begins + int(self._rule.on_delay_seconds * _US)):
            if at_us < until_us:
                self._wait(at_us)
                self._evaluate(_later(_seen(seen_us), at_us))

    def _evaluate(self, observation: Observation) -> None:
        change = self._condition.evaluate(observation)
        if change is not None and self._on_change is not None:
            self._on_change(*change)
        if change is not None and change[0]:
            self.raised += 1
            self.last_us = observation.at_us


def _changing(limit: ValueLimit, values: Values) -> tuple[_Indexes, _Indexes]:
    """Returns the indexes of values that may raise, and of those that may clear. NaN does neither."""
    if limit.above is not None:
        raising, kept = values > limit.above, values > limit.above - limit.deadband
    else:
        below = limit.below or 0.0
        raising, kept = values < below, values < below + limit.deadband
    return np.flatnonzero(raising), np.flatnonzero(~kept & ~np.isnan(values))


def _reading(sensor: str, times: Timestamps, values: Values, index: int) -> Observation:
    at_us = int(times[index])
    return Observation(at_us, at_us, {sensor: (at_us, float(values[index]))})


def _seen(at_us: int) -> Observation:
    return Observation(at_us, at_us, {})


def _later(observation: Observation, at_us: int) -> Observation:
    """Returns what is observed at a later moment, if nothing new has arrived."""
    return Observation(
        at_us,
        observation.last_seen_us,
        observation.sensors,
        observation.faulty,
        observation.risk,
        observation.rul,
        observation.anomaly,
        observation.predicted_us,
        observation.anomaly_threshold,
    )
