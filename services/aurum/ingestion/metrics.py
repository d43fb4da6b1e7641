"""Metrics of the ingestion service and its store."""

from prometheus_client import Counter, Gauge

ingestion_queue_bytes = Gauge("ingestion_queue_bytes", "Bytes of batches that wait to be stored.")
ingestion_recent_bytes = Gauge("ingestion_recent_bytes", "Bytes of recent readings in memory that are not flushed yet.")
ingestion_store_bytes = Gauge("ingestion_store_bytes", "Bytes of the store on disk.", ["part"])
ingestion_segments = Gauge("ingestion_segments", "Segments in the store.")
ingestion_blocks = Gauge("ingestion_blocks", "Blocks of many series in the store on one machine.")
ingestion_blocks_merged_total = Counter(
    "ingestion_blocks_merged_total", "Blocks of many series merged into larger ones, or into segments."
)
ingestion_disk_free_bytes = Gauge("ingestion_disk_free_bytes", "Free bytes of the store's disk.")
ingestion_segments_merged_total = Counter("ingestion_segments_merged_total", "Small segments merged into larger ones.")
ingestion_maintenance_failures_total = Counter(
    "ingestion_maintenance_failures_total", "Failed maintenance tasks of the store, which are repeated."
)
ingestion_readings_expired_total = Counter("ingestion_readings_expired_total", "Readings removed by retention.")
ingestion_sequence_gaps_closed_total = Counter(
    "ingestion_sequence_gaps_closed_total",
    "Ranges of missing sequences that no longer accept batches, because their source left too many.",
)
ingestion_integrated_readings_total = Counter(
    "ingestion_integrated_readings_total", "Readings of meters that were read from the store to answer Integrate."
)
ingestion_open_slots = Gauge("ingestion_open_slots", "Slots of batches in Cassandra that may not be merged yet.")
ingestion_open_slots_dropped_total = Counter(
    "ingestion_open_slots_dropped_total",
    "Slots of batches whose readings exceeded the memory for them; queries read them from Cassandra.",
)
ingestion_merge_lag_seconds = Gauge(
    "ingestion_merge_lag_seconds", "Age of the oldest slot of batches in Cassandra that has batches to merge."
)
ingestion_batches_merged_total = Counter(
    "ingestion_batches_merged_total", "Batches whose readings were merged into blocks and segments."
)
ingestion_tails = Gauge("ingestion_tails", "Queried series whose latest readings are held in memory.")
ingestion_machines = Gauge("ingestion_machines", "Machines in the store.")
ingestion_gateways = Gauge("ingestion_gateways", "Edge gateways that are connected to this process.")
ingestion_gateways_forgotten_total = Counter(
    "ingestion_gateways_forgotten_total", "Disconnected edge gateways that were forgotten, since there were too many."
)
ingestion_gateways_unwritten = Gauge(
    "ingestion_gateways_unwritten", "Machines whose gateway is known and not stored yet."
)
ingestion_watchers = Gauge("ingestion_watchers", "Open Watch streams.")
ingestion_feed_bytes = Gauge("ingestion_feed_bytes", "Bytes of the latest readings held in memory for Follow.")
ingestion_followers = Gauge("ingestion_followers", "Open Follow streams.")
ingestion_feed_gaps_total = Counter(
    "ingestion_feed_gaps_total",
    "Gaps reported to followers, whose readings must be queried. restart: the position is of another process; "
    "behind: the readings are no longer held.",
    ["why"],
)
ingestion_predictions = Gauge("ingestion_predictions", "Machines whose latest prediction is held in memory for Watch.")
ingestion_predictions_ignored_total = Counter(
    "ingestion_predictions_ignored_total",
    "Published predictions that were ignored. old: a newer one is held; unknown: the machine is unknown.",
    ["why"],
)
for _why in ("restart", "behind"):
    ingestion_feed_gaps_total.labels(_why)
for _why in ("old", "unknown"):
    ingestion_predictions_ignored_total.labels(_why)
for _part in ("log", "tables"):
    ingestion_store_bytes.labels(_part)
