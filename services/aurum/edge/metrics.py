"""Metrics of the edge gateway and its inputs."""

from prometheus_client import Counter, Gauge

edge_spool_bytes = Gauge("edge_spool_bytes", "Approximate bytes of the batches that wait in the spool.")
edge_spool_limit_bytes = Gauge("edge_spool_limit_bytes", "Maximum bytes of the spool's files.")
edge_spool_disk_bytes = Gauge("edge_spool_disk_bytes", "Bytes of the spool's files.")
edge_spool_live_lag_seconds = Gauge("edge_spool_live_lag_seconds", "Age of the oldest batch in the live lane.")
edge_spool_batches = Gauge("edge_spool_batches", "Batches in the spool.")
edge_spool_oldest_age_seconds = Gauge("edge_spool_oldest_age_seconds", "Age of the oldest batch in the spool.")
edge_spool_seconds_until_full = Gauge(
    "edge_spool_seconds_until_full",
    "Seconds until the spool is full at the rate of the last minute; +Inf while it does not grow.",
)
edge_spool_accepted_total = Counter("edge_spool_accepted_total", "Batches accepted from devices.")
edge_spool_forwarded_total = Counter("edge_spool_forwarded_total", "Batches that ingestion acknowledged.")
edge_spool_waiting_writes = Gauge("edge_spool_waiting_writes", "Batches that wait for room in the spool.")
edge_spool_refused_total = Counter("edge_spool_refused_total", "Batches refused because the spool was full.")
edge_spool_dropped_total = Counter("edge_spool_dropped_total", "Batches dropped from the spool.", ["reason"])
edge_dead_letters_waiting = Gauge(
    "edge_dead_letters_waiting", "Dead letters that have not been replayed or deleted yet."
)
edge_dead_letter_bytes = Gauge("edge_dead_letter_bytes", "Bytes of the dead letters.")
edge_dead_letters_total = Counter("edge_dead_letters_total", "Batches that became dead letters.", ["reason"])
edge_input_connected = Gauge(
    "edge_input_connected",
    "1 while an input is connected to its broker, server, device or folder, and is given data, else 0.",
    ["input"],
)
edge_input_missing = Gauge(
    "edge_input_missing",
    "Browse roots, nodes and registers in the configuration of an input that its device does not have.",
    ["input"],
)
edge_input_contested = Gauge(
    "edge_input_contested",
    "Sensors of an input that were not stored in the last ten minutes, because another input or tag stores the same "
    "sensor of the same machine.",
    ["input"],
)
edge_input_messages_total = Counter(
    "edge_input_messages_total",
    "Messages, notifications, answers and files that an input received.",
    ["input", "result"],
)
edge_input_readings_total = Counter("edge_input_readings_total", "Readings of an input by result.", ["input", "result"])
edge_input_refused_total = Counter(
    "edge_input_refused_total", "Values that an input did not store, by reason.", ["input", "reason"]
)
edge_input_corrected_total = Counter(
    "edge_input_corrected_total", "Values that an input stored after a correction, by reason.", ["input", "reason"]
)
edge_input_held_back_seconds_total = Counter(
    "edge_input_held_back_seconds_total",
    "Seconds in which an input did not read, because the spool was full or its rate limit was reached.",
    ["input"],
)
edge_input_rebirths_total = Counter("edge_input_rebirths_total", "Sparkplug rebirths that were requested.", ["input"])
edge_input_sources = Gauge("edge_input_sources", "Devices seen by an input.", ["input"])
edge_input_worst_quality = Gauge(
    "edge_input_worst_quality", "Lowest share of good values among the devices of an input.", ["input"]
)
edge_input_clock_skew_seconds = Gauge(
    "edge_input_clock_skew_seconds",
    "Approximate clock difference of the device of an input whose clock differs most.",
    ["input"],
)
for _reason in ("expired", "invalid", "full", "damaged", "dead_letters_full"):
    edge_spool_dropped_total.labels(_reason)
edge_spool_seconds_until_full.set(float("inf"))
