"""Evaluates an alarm rule for all machines at once, with the same results as RuleCondition for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aurum.alarms.rules import USUAL_THRESHOLD, AlarmRule, AnomalyLimit, RateOfChangeLimit, ValueLimit
from aurum.prediction.fleet.step_locator import Flags, Integers
from aurum.readings.batch import Timestamps, Values

_US = 1e6


@dataclass(frozen=True, slots=True)
class Observations:
    """The state of all machines at a moment, as alarm rules see it. NaN means unknown. Times are in µs since 1970.

    Attributes:
        at_us: The moment.
        last_seen: Time of the latest reading of each machine; 0 without any.
        sensors: For each sensor that rules name, times and values of the latest readings; time 0 without any.
        risk: The predicted risks.
        rul: The predicted RULs.
        anomaly: The anomaly scores.
        predicted: The moments for which the predictions were made.
        live: Whether each machine has sent readings of the moment; all by default. One whose history was imported has
            not, and is not silent.
        served_since: Since when readings could arrive without an outage of the platform.
        thresholds: The anomaly scores from which the models find the machines unusual; 0 for none.
    """

    at_us: int
    last_seen: Timestamps
    sensors: Mapping[str, tuple[Timestamps, Values]]
    risk: Values
    rul: Values
    anomaly: Values
    predicted: Timestamps
    thresholds: Values
    live: Flags | None = None
    served_since: int = 0


@dataclass(frozen=True, slots=True)
class ConditionChanges:
    """The machines for which a condition has begun or ceased to hold.

    Attributes:
        machines: The machines.
        alarming: Whether it holds now.
        values: The value that decided; NaN for none.
        times: When, in µs since 1970.
    """

    machines: Integers
    alarming: Flags
    values: Values
    times: Integers


@dataclass(frozen=True, slots=True)
class _Measurement:
    known: Flags
    beyond: Flags
    values: Values
    times: Integers


class ArrayCondition:
    """The evaluation of one rule for all machines.

    Attributes:
        rule: The rule.
        alarming: The last reported state of each machine.
        since: Since when the state differs from the reported one; 0 if it does not.
        hold_us: The least delay before a machine is reported as not alarming, in µs; the rule's may be longer.
    """

    def __init__(self, rule: AlarmRule) -> None:
        self.rule = rule
        self.alarming: Flags = np.zeros(0, np.bool_)
        self.since: Integers = np.zeros(0, np.int64)
        self.hold_us: Integers = np.zeros(0, np.int64)
        self.before_time: Integers = np.zeros(0, np.int64)  # of the reading that a rate is computed from
        self.before_value: Values = np.zeros(0)
        self.has_before: Flags = np.zeros(0, np.bool_)

    def extend(self, machines: int) -> None:
        """Makes room for machines up to this number."""
        more = machines - len(self.alarming)
        if more > 0:
            for name in ("alarming", "since", "hold_us", "before_time", "before_value", "has_before"):
                array = getattr(self, name)
                setattr(self, name, np.concatenate([array, np.zeros(more, array.dtype)]))

    def reset(self, machine: int, *, alarming: bool) -> None:
        """Sets the reported state of a machine, and forgets its delays."""
        self.alarming[machine] = alarming
        self.since[machine] = self.hold_us[machine] = 0
        self.has_before[machine] = False

    def evaluate(self, observations: Observations, wanted: Flags) -> ConditionChanges:
        """Evaluates the rule for the wanted machines, subject to its delays."""
        measured = self._measure(observations, wanted)
        differs = measured.known & (measured.beyond != self.alarming)
        self.since[measured.known & ~differs] = 0
        begins = differs & (self.since == 0)
        self.since[begins] = measured.times[begins]
        off_delay = np.maximum(self.rule.off_delay_seconds * _US, self.hold_us)
        delay = np.where(measured.beyond, self.rule.on_delay_seconds * _US, off_delay)
        machines = np.flatnonzero(differs & (observations.at_us - self.since >= delay))
        self.alarming[machines] = measured.beyond[machines]
        self.since[machines] = self.hold_us[machines] = 0
        return ConditionChanges(
            machines, measured.beyond[machines], measured.values[machines], measured.times[machines]
        )

    def ended(self, observations: Observations, wanted: Flags) -> Integers:
        """Returns the machines that are reported as alarming and known not to be, whatever the delay."""
        if self.rule.rate is not None:  # a rate is known only between two readings, which evaluate() takes
            return np.zeros(0, np.int64)
        measured = self._measure(observations, wanted)
        return np.flatnonzero(measured.known & self.alarming & ~measured.beyond)

    def _measure(self, observations: Observations, wanted: Flags) -> _Measurement:
        rule = self.rule
        if rule.stale is not None:
            silent = (observations.at_us - observations.last_seen) / _US
            stale = silent > rule.stale.after_seconds
            due = observations.last_seen + int(rule.stale.after_seconds * _US)
            known = wanted & (observations.last_seen != 0)
            if observations.live is not None:
                known = known & observations.live
            if observations.at_us - observations.served_since <= rule.stale.after_seconds * _US:
                known = known & ~stale  # the platform was away for a part of the time
            return _Measurement(
                known,
                stale,
                np.where(stale, silent, np.nan),
                np.where(stale, due, observations.at_us),
            )
        for limit, values in (
            (rule.risk, observations.risk),
            (rule.rul, observations.rul),
        ):
            if limit is not None:
                known = wanted & ~np.isnan(values)
                return _Measurement(known, self._exceeded(limit, values), values, observations.predicted)
        if rule.anomaly is not None:
            values = observations.anomaly
            return _Measurement(
                wanted & ~np.isnan(values),
                self._unusual(rule.anomaly, values, observations.thresholds),
                values,
                observations.predicted,
            )
        if rule.sensor is not None:
            times, values = observations.sensors[rule.sensor.sensor]
            known = wanted & (times != 0) & ~np.isnan(values)
            return _Measurement(known, self._exceeded(rule.sensor, values), values, times)
        if rule.rate is not None:
            return self._measure_rate(rule.rate, *observations.sensors[rule.rate.sensor], wanted)
        raise ValueError(f"rule {rule.name} has no condition")

    def _measure_rate(self, limit: RateOfChangeLimit, times: Timestamps, values: Values, wanted: Flags) -> _Measurement:
        known = wanted & (times != 0) & ~np.isnan(values)
        first = known & (~self.has_before | (times < self.before_time))
        enough = known & ~first & (times - self.before_time >= limit.over_seconds * _US)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            minutes = (times - self.before_time) / _US / 60
            rates = (values - self.before_value) / minutes
        set_now = first | enough
        self.before_time[set_now], self.before_value[set_now] = times[set_now], values[set_now]
        self.has_before |= first
        return _Measurement(enough, self._exceeded(limit, rates), rates, times)

    def _unusual(self, limit: AnomalyLimit, values: Values, thresholds: Values) -> Flags:
        if not limit.beyond_threshold:
            return self._exceeded(limit, values)
        above = np.where(thresholds > 0, thresholds, USUAL_THRESHOLD)
        unusual: Flags = values > np.where(self.alarming, above - limit.deadband, above)
        return unusual

    def _exceeded(self, limit: ValueLimit, values: Values) -> Flags:
        if limit.above is not None:
            above: Flags = values > np.where(self.alarming, limit.above - limit.deadband, limit.above)
            return above
        bound = limit.below or 0.0
        below: Flags = values < np.where(self.alarming, bound + limit.deadband, bound)
        return below
