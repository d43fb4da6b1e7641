"""Metrics of the fleet scorer."""

from prometheus_client import Counter, Gauge, Histogram

prediction_fleet_machines = Gauge("prediction_fleet_machines", "Machines that this scorer scores, by how.", ["by"])
prediction_fleet_members = Gauge("prediction_fleet_members", "Live scorers, as this one sees them.")
prediction_fleet_scored_total = Counter("prediction_fleet_scored_total", "Machines that were scored continuously.")
prediction_fleet_errors_total = Counter(
    "prediction_fleet_errors_total", "Machines that could not be scored continuously, by the reason.", ["reason"]
)
prediction_fleet_risk_age_seconds = Histogram(
    "prediction_fleet_risk_age_seconds",
    "Time between the arrival of a machine's first new reading and the publication of its prediction.",
    buckets=(0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 30, 60),
)
prediction_fleet_oldest_seconds = Gauge(
    "prediction_fleet_oldest_seconds", "Time for which the longest waiting machine with new readings waits."
)
prediction_fleet_lag_seconds = Gauge(
    "prediction_fleet_lag_seconds", "Age of the latest followed reading, by the clock of its machine."
)
prediction_fleet_readings_total = Counter("prediction_fleet_readings_total", "Readings that were followed.")
prediction_fleet_ignored_total = Counter(
    "prediction_fleet_ignored_total", "Readings that no window uses, by the reason.", ["reason"]
)
prediction_fleet_filled_total = Counter(
    "prediction_fleet_filled_total", "Windows that were filled from the store, by the reason.", ["reason"]
)
prediction_fleet_filling = Gauge("prediction_fleet_filling", "Machines whose windows wait to be filled from the store.")
prediction_fleet_window_bytes = Gauge("prediction_fleet_window_bytes", "Memory of the windows.")
prediction_fleet_unpublished = Gauge("prediction_fleet_unpublished", "Predictions that wait to be published.")
prediction_fleet_published_total = Counter("prediction_fleet_published_total", "Predictions that were published.")
prediction_fleet_publish_failures_total = Counter(
    "prediction_fleet_publish_failures_total", "Failed attempts to publish predictions. They are repeated."
)
prediction_fleet_streams = Gauge("prediction_fleet_streams", "Open streams of new readings.")
prediction_fleet_gaps_total = Counter(
    "prediction_fleet_gaps_total", "Gaps in the streams of new readings. Windows are filled again after each."
)
alarm_evaluation_seconds = Histogram(
    "alarm_evaluation_seconds", "Time of one evaluation of all alarm rules.", buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2)
)
alarm_groups_total = Counter(
    "alarm_groups_total", "Alarms raised for the machines of a gateway or site that fell silent together.", ["by"]
)
alarm_unwritten = Gauge("alarm_unwritten", "Alarm transitions that wait to be written to the journal.")


def track_ignored(reason: str, count: int) -> None:
    """Counts readings that no window uses."""
    if count:
        prediction_fleet_ignored_total.labels(reason).inc(count)
