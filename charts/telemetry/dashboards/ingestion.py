"""Data Ingestion: readings from the devices through the spools of the edge into the store."""

from charts.telemetry.dashboards.panels import (
    ANY,
    Page,
    Panel,
    Query,
    Row,
    largest,
    of,
    or_zero,
    quantile,
    rate,
    total,
)

_STORE, _EDGE = of("ingestion"), of("edge|edge-sim")
_WEEK = 7 * 86400

PAGE = Page(
    "ingestion",
    "AurumAI / Data Ingestion",
    "Readings a second, how long they take to be durable, what waits in spools, and the store.",
    "docs/ingestion.md",
    (
        Row(
            "Readings",
            (
                Panel(
                    "Readings",
                    "Readings a second that became durable, by how they came.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(
                            rate("data_ingestion_total", f'{_STORE}, result="accepted"', "transport"), "{{transport}}"
                        ),
                    ),
                ),
                Panel(
                    "Duplicates",
                    "Readings a second that were sent again and recognised; normal after a connection broke.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(
                            rate("data_ingestion_total", f'{_STORE}, result="duplicate"', "transport"), "{{transport}}"
                        ),
                    ),
                ),
                Panel(
                    "Errors by reason",
                    "Batches a second that were refused.",
                    "docs/runbooks/AurumAIErrors.md",
                    "cps",
                    (Query(or_zero(rate("data_ingestion_errors_total", ANY, "reason"), "reason"), "{{reason}}"),),
                ),
                Panel(
                    "Acknowledgement",
                    "Time from a batch's arrival until it is durable and acknowledged. Dots lead to traces.",
                    "docs/ingestion.md",
                    "s",
                    tuple(
                        Query(
                            quantile(each, "data_ingestion_duration_seconds", _STORE, ""),
                            f"{each * 100:g} %",
                            exemplars=True,
                        )
                        for each in (0.5, 0.95, 0.99)
                    ),
                ),
                Panel(
                    "Waiting to be durable",
                    "Bytes of batches in the queue of the writer; at AURUM_INGESTION_QUEUE_BYTES more are refused.",
                    "docs/ingestion.md",
                    "bytes",
                    (
                        Query(largest("ingestion_queue_bytes", _STORE, "k8s_pod_name"), "{{k8s_pod_name}} queue"),
                        Query(
                            largest("ingestion_recent_bytes", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} not in tables yet",
                        ),
                    ),
                ),
                Panel(
                    "Simulated devices",
                    "Readings a second that simulators made, and what became of them.",
                    "docs/ingestion.md",
                    "cps",
                    (Query(or_zero(rate("simulator_readings_total", ANY, "result"), "result"), "{{result}}"),),
                ),
            ),
        ),
        Row(
            "Spools of the edge",
            (
                Panel(
                    "Spool",
                    "Bytes of batches that wait for the uplink.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "bytes",
                    (Query(total("edge_spool_bytes", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Batches in the spool",
                    "Batches that wait for the uplink.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "short",
                    (Query(total("edge_spool_batches", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Until full",
                    "Time until the spool is full, as it has grown in the last minute; a week if it does not grow.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "s",
                    (
                        Query(
                            f"clamp_max(min by (k8s_pod_name) (edge_spool_seconds_until_full{{{_EDGE}}}), {_WEEK})",
                            "{{k8s_pod_name}}",
                        ),
                    ),
                    limit=4 * 3600,
                    low=True,
                ),
                Panel(
                    "Age",
                    "Age of what has waited longest, and of what is new: a backlog must not hold that up.",
                    "docs/runbooks/AurumAIIngestFreshnessBurn.md",
                    "s",
                    (
                        Query(
                            largest("edge_spool_oldest_age_seconds", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} oldest"
                        ),
                        Query(largest("edge_spool_live_lag_seconds", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} live"),
                    ),
                ),
                Panel(
                    "Through the edge",
                    "Batches a second accepted from devices, and acknowledged by ingestion.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(rate("edge_spool_accepted_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} in"),
                        Query(rate("edge_spool_forwarded_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} out"),
                    ),
                ),
                Panel(
                    "Given up",
                    "Batches a second refused since the spool was full, or dropped, by reason.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "cps",
                    (
                        Query(rate("edge_spool_refused_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} refused"),
                        Query(rate("edge_spool_dropped_total", _EDGE, "reason"), "{{reason}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Store",
            (
                Panel(
                    "Size",
                    "Bytes on disk: the log that was written last, and the tables.",
                    "docs/runbooks/AurumAIStoreDiskFull.md",
                    "bytes",
                    (Query(total("ingestion_store_bytes", _STORE, "part"), "{{part}}"),),
                    stacked=True,
                ),
                Panel(
                    "Segments",
                    "Segments in the store; merging keeps them few.",
                    "docs/ingestion.md",
                    "short",
                    (Query(largest("ingestion_segments", _STORE, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                ),
                Panel(
                    "Disk free",
                    "Bytes free on the disk of the store; below AURUM_INGESTION_MIN_FREE_BYTES readings are refused.",
                    "docs/runbooks/AurumAIStoreDiskFull.md",
                    "bytes",
                    (Query(f"min by (k8s_pod_name) (ingestion_disk_free_bytes{{{_STORE}}})", "{{k8s_pod_name}}"),),
                    limit=1e9,
                    low=True,
                ),
                Panel(
                    "Merged and expired",
                    "Segments merged and readings removed by retention, a second.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(
                            rate("ingestion_segments_merged_total", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} segments merged",
                        ),
                        Query(
                            rate("ingestion_readings_expired_total", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} readings expired",
                        ),
                    ),
                ),
                Panel(
                    "Statements, 95 %",
                    "Time of the statements of the store; 0 without any.",
                    "docs/runbooks/AurumAISlowRequests.md",
                    "s",
                    (
                        Query(
                            or_zero(quantile(0.95, "db_query_duration_seconds", _STORE, "operation"), "operation"),
                            "{{operation}}",
                            exemplars=True,
                        ),
                    ),
                ),
                Panel(
                    "In use",
                    "Connections to the store, open Watch streams, and series held in memory since they are asked for.",
                    "docs/ingestion.md",
                    "short",
                    (
                        Query(total("db_connections_active", _STORE), "connections"),
                        Query(total("ingestion_watchers", _STORE), "watchers"),
                        Query(total("ingestion_tails", _STORE), "series in memory"),
                    ),
                ),
            ),
        ),
    ),
    services="ingestion|edge|edge-sim|iot-sim|api",
)
