"""Evaluates the conditions of alarm rules, with deadbands and delays."""

import math
from dataclasses import dataclass, field

from aurum.alarms.rules import AlarmRule, RateOfChangeLimit, ValueLimit

_US = 1e6


@dataclass(frozen=True, slots=True)
class Observation:
    """The state of a machine at a moment, as alarm rules see it. Times are in µs since 1970; None means unknown.

    Attributes:
        at_us: The moment.
        last_seen_us: Time of the machine's latest reading; 0 if there is none.
        sensors: For each sensor, time and value of the latest reading.
        faulty: Whether the machine stands still with a fault.
        risk: The predicted risk.
        rul: The predicted RUL.
        anomaly: The anomaly score.
        predicted_us: The moment for which the prediction was made.
        anomaly_threshold: The anomaly score from which the model of the machine finds it unusual; 0 if it has none.
    """

    at_us: int
    last_seen_us: int
    sensors: dict[str, tuple[int, float]]
    faulty: bool = False
    risk: float | None = None
    rul: float | None = None
    anomaly: float | None = None
    predicted_us: int = 0
    anomaly_threshold: float = 0.0


@dataclass(slots=True)
class RuleCondition:
    """The evaluation of one rule for one machine.

    Attributes:
        rule: The rule.
        alarming: The last reported state.
    """

    rule: AlarmRule
    alarming: bool = False
    _since: int = 0  # since when the state differs from the reported one; 0 if it does not
    _before: tuple[int, float] | None = field(default=None, repr=False)  # reading that a rate is computed from

    @property
    def waits(self) -> bool:
        """Whether the state may change without a new reading, because of silence or a running delay."""
        return self.rule.stale is not None or self._since > 0

    @property
    def since(self) -> int:
        """Since when the state differs from the reported one, in µs since 1970; 0 if it does not."""
        return self._since

    @property
    def before(self) -> tuple[int, float] | None:
        """Time and value of the reading that the next rate is computed from."""
        return self._before

    def evaluate(self, observation: Observation) -> tuple[bool, float | None, int] | None:
        """Evaluates the rule for an observation, subject to the rule's delays.

        Returns:
            If the state has changed: whether the condition now holds, the value that decided, and its time in µs since
            1970. Otherwise None.
        """
        measurement = self._measure(observation)
        if measurement is None:
            return None
        beyond, value, at = measurement
        if beyond == self.alarming:
            self._since = 0
            return None
        self._since = self._since or at
        delay = self.rule.on_delay_seconds if beyond else self.rule.off_delay_seconds
        if observation.at_us - self._since < delay * _US:
            return None
        self.alarming, self._since = beyond, 0
        return beyond, value, at

    def _measure(self, observation: Observation) -> tuple[bool, float | None, int] | None:
        """Returns whether the limit is exceeded, the value and its time in µs; None if the value is unknown."""
        rule = self.rule
        if rule.stale is not None:
            if not observation.last_seen_us:
                return None
            silent = (observation.at_us - observation.last_seen_us) / _US
            due = observation.last_seen_us + int(rule.stale.after_seconds * _US)
            stale = silent > rule.stale.after_seconds
            # The start follows from the readings, so that all replicas agree on it. The end is the time of detection,
            # since a backlog may contain older readings.
            return stale, silent if stale else None, due if stale else observation.at_us
        for limit, value in (
            (rule.risk, observation.risk),
            (rule.rul, observation.rul),
            (rule.anomaly and rule.anomaly.at(observation.anomaly_threshold), observation.anomaly),
        ):
            if limit is not None:
                return None if value is None else (self._exceeds(limit, value), value, observation.predicted_us)
        if rule.sensor is not None:
            latest = observation.sensors.get(rule.sensor.sensor)
            if latest is None or math.isnan(latest[1]):  # NaN neither raises nor clears an alarm
                return None
            return self._exceeds(rule.sensor, latest[1]), latest[1], latest[0]
        return self._measure_rate(rule.rate, observation) if rule.rate is not None else None

    def _measure_rate(
        self, limit: RateOfChangeLimit, observation: Observation
    ) -> tuple[bool, float | None, int] | None:
        latest = observation.sensors.get(limit.sensor)
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
        return self._exceeds(limit, rate), rate, latest[0]

    def _exceeds(self, limit: ValueLimit, value: float) -> bool:
        return limit.is_exceeded(value, alarming=self.alarming)
