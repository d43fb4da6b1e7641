"""Data Ingestion: readings from the devices through the spools of the edge into the store."""

from charts.telemetry.dashboards.panels import (
    ANY,
    Page,
    Panel,
    Query,
    Row,
    largest,
    matchers_for,
    or_zero,
    quantile,
    rate,
    smallest,
    total,
)

_STORE, _EDGE = matchers_for("ingestion"), matchers_for("edge|edge-sim")
_WEEK = 7 * 86400

PAGE = Page(
    "ingestion",
    "AurumAI / Data Ingestion",
    "Rate of readings, time until they are durable, spools, inputs and the store.",
    "docs/ingestion.md",
    (
        Row(
            "Readings",
            (
                Panel(
                    "Readings",
                    "Readings per second that became durable, by transport.",
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
                    "Repeated readings per second that were recognised. They are normal after a connection broke.",
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
                    "Refused batches per second.",
                    "docs/runbooks/AurumAIErrors.md",
                    "cps",
                    (Query(or_zero(rate("data_ingestion_errors_total", ANY, "reason"), "reason"), "{{reason}}"),),
                ),
                Panel(
                    "Acknowledgement",
                    "Time from a batch's arrival until it is durable and acknowledged. Dots link to traces.",
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
                    "Bytes of batches that wait to be stored. At AURUM_INGESTION_QUEUE_BYTES further ones are refused.",
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
                    "Readings per second of the simulators, by result.",
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
                    "Time until the spool is full at the rate of the last minute; a week if it does not grow.",
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
                    "Age of the oldest batch, and of the oldest in the live lane, which a backlog must not delay.",
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
                    "Batches per second accepted from devices, and acknowledged by ingestion.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(rate("edge_spool_accepted_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} in"),
                        Query(rate("edge_spool_forwarded_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} out"),
                    ),
                ),
                Panel(
                    "Given up",
                    "Batches per second refused because the spool was full, or dropped, by reason.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "cps",
                    (
                        Query(rate("edge_spool_refused_total", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}} refused"),
                        Query(rate("edge_spool_dropped_total", _EDGE, "reason"), "{{reason}}"),
                    ),
                ),
                Panel(
                    "Dead letters",
                    "Batches that ingestion refused, until they are replayed or deleted.",
                    "docs/runbooks/AurumAIDeadLetters.md",
                    "short",
                    (Query(total("edge_dead_letters_waiting", _EDGE, "k8s_pod_name"), "{{k8s_pod_name}}"),),
                    limit=1,
                ),
            ),
        ),
        Row(
            "Inputs of the edge",
            (
                Panel(
                    "Connected",
                    "1 while an input is connected to its broker, server, device or folder, and is given data, else 0.",
                    "docs/runbooks/AurumAIInputAway.md",
                    "short",
                    (Query(or_zero(smallest("edge_input_connected", _EDGE, "input"), "input"), "{{input}}"),),
                ),
                Panel(
                    "Missing",
                    "Browse roots, nodes and registers in the configuration of an input that its device does not have.",
                    "docs/runbooks/AurumAIInputIncomplete.md",
                    "short",
                    (Query(total("edge_input_missing", _EDGE, "input"), "{{input}}"),),
                ),
                Panel(
                    "Heard",
                    "Messages, notifications, answers and files per second, by result, and requested rebirths.",
                    "docs/edge.md",
                    "cps",
                    (
                        Query(
                            or_zero(rate("edge_input_messages_total", _EDGE, "input, result"), "input"),
                            "{{input}} {{result}}",
                        ),
                        Query(
                            or_zero(rate("edge_input_rebirths_total", _EDGE, "input"), "input"), "{{input}} rebirths"
                        ),
                    ),
                ),
                Panel(
                    "Readings by input",
                    "Readings per second by result: spooled, unchanged, bad, invalid, unwanted, retimed.",
                    "docs/edge.md",
                    "cps",
                    (
                        Query(
                            or_zero(rate("edge_input_readings_total", _EDGE, "input, result"), "input"),
                            "{{input}} {{result}}",
                        ),
                    ),
                ),
                Panel(
                    "Refused and corrected",
                    "Values per second that an input did not store, or stored after a correction, by reason.",
                    "docs/runbooks/AurumAIInputRefuses.md",
                    "cps",
                    (
                        Query(
                            or_zero(rate("edge_input_refused_total", _EDGE, "input, reason"), "input"),
                            "{{input}} {{reason}}",
                        ),
                        Query(
                            or_zero(rate("edge_input_corrected_total", _EDGE, "input, reason"), "input"),
                            "{{input}} {{reason}}, corrected",
                        ),
                    ),
                ),
                Panel(
                    "Held back",
                    "Share of the time in which an input did not read, because of a full spool or its rate limit.",
                    "docs/runbooks/AurumAISpoolFilling.md",
                    "percentunit",
                    (Query(or_zero(rate("edge_input_held_back_seconds_total", _EDGE, "input"), "input"), "{{input}}"),),
                ),
                Panel(
                    "Worst quality",
                    "Lowest share of good values among the devices of an input.",
                    "docs/edge.md",
                    "percentunit",
                    (Query(or_zero(smallest("edge_input_worst_quality", _EDGE, "input"), "input"), "{{input}}"),),
                ),
                Panel(
                    "Devices and their clocks",
                    "Devices of each input, and the largest difference of their clocks in seconds.",
                    "docs/edge.md",
                    "short",
                    (
                        Query(or_zero(total("edge_input_sources", _EDGE, "input"), "input"), "{{input}} devices"),
                        Query(
                            or_zero(largest("edge_input_clock_skew_seconds", _EDGE, "input"), "input"),
                            "{{input}} seconds",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Store",
            (
                Panel(
                    "Size",
                    "Bytes on disk: the log and the tables.",
                    "docs/runbooks/AurumAIStoreDiskFull.md",
                    "bytes",
                    (Query(total("ingestion_store_bytes", _STORE, "part"), "{{part}}"),),
                    stacked=True,
                ),
                Panel(
                    "Segments and blocks",
                    "Segments, and blocks of many series, in the store. Merging limits their number.",
                    "docs/ingestion.md",
                    "short",
                    (
                        Query(largest("ingestion_segments", _STORE, "k8s_pod_name"), "{{k8s_pod_name}} segments"),
                        Query(largest("ingestion_blocks", _STORE, "k8s_pod_name"), "{{k8s_pod_name}} blocks"),
                    ),
                ),
                Panel(
                    "Disk free",
                    "Free bytes of the store's disk. Below AURUM_INGESTION_MIN_FREE_BYTES readings are refused.",
                    "docs/runbooks/AurumAIStoreDiskFull.md",
                    "bytes",
                    (Query(f"min by (k8s_pod_name) (ingestion_disk_free_bytes{{{_STORE}}})", "{{k8s_pod_name}}"),),
                    limit=1e9,
                    low=True,
                ),
                Panel(
                    "Merged and expired",
                    "Segments and blocks merged per second, and readings removed by retention.",
                    "docs/ingestion.md",
                    "cps",
                    (
                        Query(
                            rate("ingestion_segments_merged_total", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} segments merged",
                        ),
                        Query(
                            rate("ingestion_blocks_merged_total", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} blocks merged",
                        ),
                        Query(
                            rate("ingestion_readings_expired_total", _STORE, "k8s_pod_name"),
                            "{{k8s_pod_name}} readings expired",
                        ),
                    ),
                ),
                Panel(
                    "Statements, 95 %",
                    "95th percentile of the time of the store's statements; 0 without statements.",
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
                    "Connections to the store, open Watch streams, and queried series held in memory.",
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
