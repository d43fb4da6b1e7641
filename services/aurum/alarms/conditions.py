"""Evaluates the conditions of alarm rules, with deadbands and delays."""

import math
from dataclasses import dataclass, field

from aurum.alarms.rules import Limit, RateLimit, Rule

_US = 1e6


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of a machine at a moment. Times are in µs since 1970; None means unknown.

    Attributes:
        at_us: The moment.
        last_seen_us: Time of the machine's latest reading; 0 if there is none.
        sensors: For each sensor, time and value of the latest reading.
        faulty: Whether the machine stands still with a fault.
        risk: The predicted risk.
        rul: The predicted RUL.
        anomaly: The anomaly score.
        predicted_us: The moment for which the prediction was made.
    """

    at_us: int
    last_seen_us: int
    sensors: dict[str, tuple[int, float]]
    faulty: bool = False
    risk: float | None = None
    rul: float | None = None
    anomaly: float | None = None
    predicted_us: int = 0


@dataclass(slots=True)
class Condition:
    """The evaluation of one rule for one machine.

    Attributes:
        rule: The rule.
        alarming: The last reported state.
    """

    rule: Rule
    alarming: bool = False
    _since: int = 0  # since when the state differs from the reported one; 0 if it does not
    _before: tuple[int, float] | None = field(default=None, repr=False)

    @property
    def waits(self) -> bool:
        """Whether the state may change without a new reading, because of silence or a running delay."""
        return self.rule.stale is not None or self._since > 0

    def observe(self, seen: Observed) -> tuple[bool, float | None, int] | None:
        """Evaluates the rule. Returns the new state, the value and its time if the state has changed, else None."""
        found = self._value(seen)
        if found is None:
            return None
        beyond, value, at = found
        if beyond == self.alarming:
            self._since = 0
            return None
        self._since = self._since or at
        delay = self.rule.on_delay_seconds if beyond else self.rule.off_delay_seconds
        if seen.at_us - self._since < delay * _US:
            return None
        self.alarming, self._since = beyond, 0
        return beyond, value, at

    def _value(self, seen: Observed) -> tuple[bool, float | None, int] | None:
        rule = self.rule
        if rule.stale is not None:
            if not seen.last_seen_us:
                return None
            silent = (seen.at_us - seen.last_seen_us) / _US
            due = seen.last_seen_us + int(rule.stale.after_seconds * _US)
            stale = silent > rule.stale.after_seconds
            # The start follows from the readings, so that all replicas agree on it. The end is the time of detection,
            # since a backlog may contain older readings.
            return stale, silent if stale else None, due if stale else seen.at_us
        for limit, value in ((rule.risk, seen.risk), (rule.rul, seen.rul), (rule.anomaly, seen.anomaly)):
            if limit is not None:
                return None if value is None else (self._beyond(limit, value), value, seen.predicted_us)
        if rule.sensor is not None:
            latest = seen.sensors.get(rule.sensor.sensor)
            if latest is None or math.isnan(latest[1]):  # NaN neither raises nor clears an alarm
                return None
            return self._beyond(rule.sensor, latest[1]), latest[1], latest[0]
        return self._rate(rule.rate, seen) if rule.rate is not None else None

    def _rate(self, limit: RateLimit, seen: Observed) -> tuple[bool, float | None, int] | None:
        latest = seen.sensors.get(limit.sensor)
        if latest is None or math.isnan(latest[1]):
            return None
        before = self._before
        if before is None or latest[0] < before[0]:
            self._before = latest
            return None
        if latest[0] - before[0] < limit.over_seconds * _US:
            return None
        self._before = latest
        minutes = (latest[0] - before[0]) / _US / 60
        rate = (latest[1] - before[1]) / minutes
        return self._beyond(limit, rate), rate, latest[0]

    def _beyond(self, limit: Limit, value: float) -> bool:
        return limit.beyond(value, alarming=self.alarming)
