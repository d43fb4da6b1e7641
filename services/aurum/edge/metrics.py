"""Metrics of the edge gateway and its inputs."""

from prometheus_client import Counter, Gauge

edge_spool_bytes = Gauge("edge_spool_bytes", "Bytes of the batches that wait in the spool, about.")
edge_spool_limit_bytes = Gauge("edge_spool_limit_bytes", "Bytes that the spool's files may have.")
edge_spool_disk_bytes = Gauge("edge_spool_disk_bytes", "Bytes of the spool's files.")
edge_spool_live_lag_seconds = Gauge(
    "edge_spool_live_lag_seconds", "Age of the oldest batch that is not part of a backlog."
)
edge_spool_batches = Gauge("edge_spool_batches", "Batches in the spool.")
edge_spool_oldest_age_seconds = Gauge("edge_spool_oldest_age_seconds", "Age of the oldest batch in the spool.")
edge_spool_seconds_until_full = Gauge(
    "edge_spool_seconds_until_full", "At the rate of the last minute; +Inf while the spool does not grow."
)
edge_spool_accepted_total = Counter("edge_spool_accepted_total", "Batches accepted from devices.")
edge_spool_forwarded_total = Counter("edge_spool_forwarded_total", "Batches that the uplink acknowledged.")
edge_spool_refused_total = Counter("edge_spool_refused_total", "Batches refused because the spool was full.")
edge_spool_dropped_total = Counter("edge_spool_dropped_total", "Batches given up.", ["reason"])
edge_dead_letters_waiting = Gauge(
    "edge_dead_letters_waiting", "Batches that ingestion refused for good and nobody has looked after yet."
)
edge_dead_letter_bytes = Gauge("edge_dead_letter_bytes", "Bytes of these batches.")
edge_dead_letters_total = Counter("edge_dead_letters_total", "Batches that ingestion refused for good.", ["reason"])
edge_input_connected = Gauge("edge_input_connected", "Whether an input has what it listens to (1) or not.", ["input"])
edge_input_messages_total = Counter(
    "edge_input_messages_total",
    "Messages, notifications, answers and files that an input has heard.",
    ["input", "result"],
)
edge_input_readings_total = Counter(
    "edge_input_readings_total", "Readings of an input, by what became of them.", ["input", "result"]
)
edge_input_held_back_seconds_total = Counter(
    "edge_input_held_back_seconds_total",
    "Seconds that an input has read nothing, as the spool had no room or it had sent its share.",
    ["input"],
)
edge_input_rebirths_total = Counter("edge_input_rebirths_total", "Sparkplug rebirths that were asked for.", ["input"])
edge_input_sources = Gauge("edge_input_sources", "Devices that were heard behind an input.", ["input"])
edge_input_worst_quality = Gauge(
    "edge_input_worst_quality", "Share of good values of the device behind an input that has the fewest.", ["input"]
)
edge_input_clock_skew_seconds = Gauge(
    "edge_input_clock_skew_seconds", "Of the device behind an input whose clock is off most, about.", ["input"]
)
for _reason in ("expired", "invalid", "full", "damaged", "dead_letters_full"):
    edge_spool_dropped_total.labels(_reason)
edge_spool_seconds_until_full.set(float("inf"))
