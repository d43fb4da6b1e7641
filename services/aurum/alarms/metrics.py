"""Metrics of the evaluation of alarm rules."""

from prometheus_client import Counter, Gauge

alarm_transitions_dropped_total = Counter(
    "alarm_transitions_dropped_total", "Transitions of alarms that could not be recorded."
)
alarm_rules_revision = Gauge(
    "alarm_rules_revision", "Newest stored revision of the alarm rules that this process follows; 0 if there is none."
)
