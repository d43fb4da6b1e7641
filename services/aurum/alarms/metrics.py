"""Metrics of the evaluation of alarm rules."""

from prometheus_client import Counter

alarm_transitions_dropped_total = Counter(
    "alarm_transitions_dropped_total", "Transitions of alarms that could not be recorded."
)
