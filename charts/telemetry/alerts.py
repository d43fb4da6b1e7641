"""The alerts: condition, severity, dashboard, and the time series that test them.

The labels of all metrics are those that the collectors add: k8s_namespace_name, k8s_pod_name, service_name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from charts.telemetry.selectors import BY_SERVICE, EDGES
from charts.telemetry.slos import SLOS, WINDOWS, Slo, Window, window_name

_SERVICE = "{{ $labels.service_name }}"
SERVICES = ("api", "ingestion", "prediction")


@dataclass(frozen=True, slots=True)
class Case:
    """A test of an alert.

    Attributes:
        series: Input series in promtool's notation, with one value per minute.
        at: Time of evaluation, in minutes.
        fires: Whether the alert fires at that time.
    """

    series: Mapping[str, str]
    at: int
    fires: bool


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert rule.

    Attributes:
        name: Name of the alert.
        summary: Template of its title.
        description: Template of its details.
        expr: PromQL expression.
        hold: Duration for which the expression must hold.
        severity: warning or critical.
        dashboard: Name of the dashboard that shows more.
        service: Value or template of the label service.
        labels: Further labels of the alert that fires in the tests.
        cases: Tests of the rule.
    """

    name: str
    summary: str
    description: str
    expr: str
    hold: str
    severity: str
    dashboard: str
    service: str = _SERVICE
    labels: dict[str, str] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()


_PLANT = 'k8s_namespace_name="plant", service_name="api"'
_ONE = {"k8s_namespace_name": "plant", "service_name": "api"}


def _cases(series: str, *cases: tuple[str, int, bool]) -> tuple[Case, ...]:
    """Returns tests of one series. cases: Values of the series, minute of evaluation, and whether the alert fires."""
    return tuple(Case({series: values}, at, fires) for values, at, fires in cases)


def _steady(per_minute: int, minutes: int = 40) -> str:
    return f"0+{per_minute}x{minutes}"


def _then_quiet(per_minute: int, minutes: int, rest: int = 40) -> str:
    """Returns a counter that grows for `minutes` minutes and then stays constant for `rest` minutes."""
    return f"0+{per_minute}x{minutes} {per_minute * minutes}+0x{rest}"


_SLOW = Alert(
    "AurumAISlowRequests",
    f"Requests to {_SERVICE} are slow",
    "The 95th percentile of the duration is {{ $value | humanizeDuration }}. It should be below 1 s.",
    f"aurumai:http_request_duration_seconds:p95_5m > 1 and on ({BY_SERVICE}) aurumai:http_requests:rate5m > 0.05",
    "5m",
    "warning",
    "overview",
    labels=_ONE,
    cases=(
        *(
            Case(
                {
                    f'http_request_duration_seconds_bucket{{{_PLANT}, le="1"}}': _steady(fast),
                    f'http_request_duration_seconds_bucket{{{_PLANT}, le="2.5"}}': _steady(60),
                    f'http_request_duration_seconds_bucket{{{_PLANT}, le="+Inf"}}': _steady(60),
                    f'http_requests_total{{{_PLANT}, status_code="200"}}': _steady(60),
                },
                12,
                fires,
            )
            for fast, fires in ((50, True), (58, False))
        ),
        Case(
            {
                f'http_request_duration_seconds_bucket{{{_PLANT}, le="1"}}': "0+10x15 150+60x40",
                f'http_request_duration_seconds_bucket{{{_PLANT}, le="2.5"}}': _steady(60, 60),
                f'http_request_duration_seconds_bucket{{{_PLANT}, le="+Inf"}}': _steady(60, 60),
                f'http_requests_total{{{_PLANT}, status_code="200"}}': _steady(60, 60),
            },
            25,
            False,
        ),
    ),
)

_ERRORS = Alert(
    "AurumAIErrors",
    f"Requests to {_SERVICE} fail",
    "{{ $value | humanizePercentage }} of the requests fail with a server error. It should be below 1 %.",
    f"aurumai:http_request_errors:ratio5m > 0.01 and on ({BY_SERVICE}) aurumai:http_requests:rate5m > 0.05",
    "5m",
    "critical",
    "overview",
    labels=_ONE,
    cases=tuple(
        Case(
            {
                f'http_requests_total{{{_PLANT}, status_code="200"}}': _steady(1000, 60),
                f'http_requests_total{{{_PLANT}, status_code="503"}}': failures,
            },
            at,
            fires,
        )
        for failures, at, fires in (
            (_steady(12), 12, True),
            (_steady(9), 12, False),
            (_then_quiet(12, 15), 12, True),
            (_then_quiet(12, 15), 22, False),
        )
    ),
)

_BREAKER = Alert(
    "AurumAIBreakerOpen",
    f"The circuit breaker {{{{ $labels.name }}}} of {_SERVICE} is open",
    "It has been open or half-open in {{ $labels.k8s_pod_name }} for more than a minute. Its calls are refused.",
    # Half-open counts as well, since a breaker that alternates between open and half-open refuses most calls. The
    # range selector excludes pods that have ended, whose last value an instant selector returns for five minutes
    "min_over_time(circuit_breaker_state[30s]) > 0",
    "45s",
    "critical",
    "resilience",
    labels={**_ONE, "k8s_pod_name": "api-1", "name": "api/prediction"},
    cases=_cases(
        f'circuit_breaker_state{{{_PLANT}, k8s_pod_name="api-1", name="api/prediction"}}',
        ("0x5 1x10 0x20", 8, True),
        ("0x5 1 0x20", 7, False),
        ("0x5 1x10 0x20", 20, False),
    ),
)

_RETRIES = Alert(
    "AurumAIManyRetries",
    f"{_SERVICE} makes many retries",
    "It makes {{ $value | humanize }} retries per second. It should be below 50. The retry budget limits them.",
    f"sum by ({BY_SERVICE}) (rate(retry_attempts_total[5m])) > 50",
    "5m",
    "warning",
    "resilience",
    labels=_ONE,
    cases=_cases(
        f'retry_attempts_total{{{_PLANT}, name="api/prediction"}}',
        (_steady(3300), 12, True),
        (_steady(2700), 12, False),
        (_then_quiet(3300, 15), 24, False),
    ),
)

_EDGE = 'k8s_namespace_name="plant", service_name="edge", k8s_pod_name="edge-0"'
_SPOOL = Alert(
    "AurumAISpoolFilling",
    "The spool of {{ $labels.k8s_pod_name }} will soon be full",
    "At the rate of the last 30 minutes it is full within four hours. A full spool holds devices back.",
    f"edge_spool_bytes{{{EDGES}}} > 1e6 and "
    f"predict_linear(edge_spool_bytes{{{EDGES}}}[30m], 4 * 3600) > edge_spool_limit_bytes{{{EDGES}}}",
    "10m",
    "warning",
    "ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "edge", "k8s_pod_name": "edge-0"},
    cases=tuple(
        Case({f"edge_spool_bytes{{{_EDGE}}}": values, f"edge_spool_limit_bytes{{{_EDGE}}}": limit}, at, fires)
        for values, limit, at, fires in (
            ("2000000+5000000x60", "1000000000x60", 45, True),
            ("2000000+5000000x60", "2000000000x60", 45, False),
            ("2000000+3000000x60", "1000000000x60", 45, False),
            ("2000000+5000000x45 2000000x60", "1000000000x110", 100, False),
        )
    ),
)

_DEAD_LETTERS = Alert(
    "AurumAIDeadLetters",
    "{{ $labels.k8s_pod_name }} has dead letters",
    "Ingestion refused {{ $value }} batches. They are kept as dead letters until they are replayed or deleted.",
    f"max_over_time(edge_dead_letters_waiting{{{EDGES}}}[1m]) > 0",
    "1m",
    "warning",
    "ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "edge", "k8s_pod_name": "edge-0"},
    cases=_cases(
        f"edge_dead_letters_waiting{{{_EDGE}}}",
        ("0x5 2x20", 8, True),
        ("0x20", 15, False),
        ("2x10 0x20", 20, False),
    ),
)

_INPUT = Alert(
    "AurumAIInputAway",
    "Input {{ $labels.input }} of {{ $labels.k8s_pod_name }} is disconnected",
    "Its broker, server, device or folder has been unavailable, or has given no data, for five minutes.",
    f"max_over_time(edge_input_connected{{{EDGES}}}[1m]) == 0",
    "5m",
    "warning",
    "ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "edge", "k8s_pod_name": "edge-0", "input": "hall-1"},
    cases=_cases(
        f'edge_input_connected{{{_EDGE}, input="hall-1"}}',
        ("1x5 0x20", 15, True),
        ("1x5 0x3 1x20", 12, False),
        ("1x5 0x15 1x20", 30, False),
    ),
)

_INPUT_LABELS = "k8s_namespace_name, service_name, k8s_pod_name, input"
_NOT_STORED = (  # absent values, texts and old retained messages are usual for some devices
    f'sum by ({_INPUT_LABELS}) (rate(edge_input_refused_total{{{EDGES}, reason!~"absent|old|text"}}[10m]))'
)
_STORED = f'sum by ({_INPUT_LABELS}) (rate(edge_input_readings_total{{{EDGES}, result=~"accepted|unchanged"}}[10m]))'
_INPUT_REFUSES = Alert(
    "AurumAIInputRefuses",
    "Input {{ $labels.input }} of {{ $labels.k8s_pod_name }} refuses values",
    "{{ $value | humanizePercentage }} of its values are not stored.",
    f"{_NOT_STORED} / ({_NOT_STORED} + {_STORED}) > 0.1",
    "10m",
    "warning",
    "ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "edge", "k8s_pod_name": "edge-0", "input": "hall-1"},
    cases=tuple(
        Case(
            {
                f'edge_input_refused_total{{{_EDGE}, input="hall-1", reason="{reason}"}}': refused,
                f'edge_input_readings_total{{{_EDGE}, input="hall-1", result="accepted"}}': _steady(600, 80),
            },
            at,
            fires,
        )
        for reason, refused, at, fires in (
            ("out_of_range", _steady(200), 30, True),
            ("out_of_range", _steady(20), 30, False),
            ("absent", _steady(6000), 30, False),
            ("text", _steady(6000), 30, False),
            ("not_a_number", _steady(200), 30, True),
            ("out_of_range", _then_quiet(200, 30), 50, False),
        )
    ),
)

_INCOMPLETE = Alert(
    "AurumAIInputIncomplete",
    "Input {{ $labels.input }} of {{ $labels.k8s_pod_name }} does not store {{ $value }} of its parts",
    "For five minutes, its device has had no such browse root, node or register, or another input has stored the same "
    "sensor of the same machine.",
    f"min_over_time(edge_input_missing{{{EDGES}}}[1m]) > 0 or min_over_time(edge_input_contested{{{EDGES}}}[1m]) > 0",
    "5m",
    "warning",
    "ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "edge", "k8s_pod_name": "edge-0", "input": "cell-7"},
    cases=_cases(
        f'edge_input_missing{{{_EDGE}, input="cell-7"}}',
        ("0x5 2x20", 15, True),
        ("0x5 2x3 0x20", 12, False),
        ("0x5 2x15 0x20", 30, False),
    )
    + _cases(
        f'edge_input_contested{{{_EDGE}, input="cell-7"}}',
        ("0x5 2x20", 15, True),
        ("0x5 2x3 0x20", 12, False),
    ),
)

_STORE = 'k8s_namespace_name="plant", service_name="ingestion", k8s_pod_name="ingestion-0"'
_DISK = Alert(
    "AurumAIStoreDiskFull",
    "The disk of the store is nearly full",
    "{{ $value | humanize1024 }}B are free. Below AURUM_INGESTION_MIN_FREE_BYTES new readings are refused.",
    'min_over_time(ingestion_disk_free_bytes{service_name="ingestion"}[1m]) < 1e9',
    "5m",
    "critical",
    "ingestion",
    service="ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "ingestion", "k8s_pod_name": "ingestion-0"},
    cases=_cases(
        f"ingestion_disk_free_bytes{{{_STORE}}}",
        ("900000000x30", 10, True),
        ("1100000000x30", 10, False),
        ("900000000x15 1100000000x30", 25, False),
    ),
)

_MERGE_LAG = Alert(
    "AurumAIMergeLag",
    "Batches in Cassandra are merged late",
    "The oldest batches that are not merged are {{ $value | humanizeDuration }} old. Above an hour, new readings are "
    "refused.",
    # Each replica reports the slots that all share
    'max by (k8s_namespace_name, service_name) (ingestion_merge_lag_seconds{service_name="ingestion"}) > 600',
    "5m",
    "warning",
    "ingestion",
    service="ingestion",
    labels={"k8s_namespace_name": "plant", "service_name": "ingestion"},
    cases=_cases(
        f"ingestion_merge_lag_seconds{{{_STORE}}}",
        ("700x30", 10, True),
        ("60x30", 10, False),
        ("700x15 60x30", 25, False),
    ),
)

_DAMAGED = Alert(
    "AurumAIDamaged",
    "{{ $labels.k8s_pod_name }} has damaged items of kind {{ $labels.kind }}",
    "{{ $value }} items cannot be read and are set apart. All other items remain in use.",
    'max_over_time(damaged_items{kind!="event"}[1m]) > 0',
    "1m",
    "warning",
    "ingestion",
    labels={
        "k8s_namespace_name": "plant",
        "service_name": "ingestion",
        "k8s_pod_name": "ingestion-0",
        "kind": "segment",
    },
    cases=_cases(
        f'damaged_items{{{_STORE}, kind="segment"}}',
        ("0x5 2x20", 8, True),
        ("0x20", 15, False),
        ("2x10 0x20", 20, False),
    ),
)

_MODEL = 'k8s_namespace_name="plant", service_name="prediction", machine_type="pump"'
_DRIFT = Alert(
    "AurumAIModelDrift",
    "Features of {{ $labels.machine_type }} machines are outside the range of the training data",
    "{{ $value | humanizePercentage }} of the latest predictions have a feature outside this range.",
    "max by (k8s_namespace_name, service_name, machine_type) "
    '(prediction_out_of_range_ratio{service_name="prediction"}) > 0.2',
    "15m",
    "warning",
    "predictions",
    service="prediction",
    labels={"k8s_namespace_name": "plant", "service_name": "prediction", "machine_type": "pump"},
    cases=_cases(
        f"prediction_out_of_range_ratio{{{_MODEL}}}",
        ("0.3x60", 40, True),
        ("0.15x60", 40, False),
        ("0.3x45 0.1x60", 60, False),
    ),
)

_OPERATOR = 'k8s_namespace_name="plant", service_name="operator"'
_POLICY = Alert(
    "AurumAIPolicyNotConverged",
    "A policy has not reached every pod",
    "{{ $value }} policies are in progress, refused or rolled back. `kubectl get rp,tp` shows their status.",
    f"sum by ({BY_SERVICE}) "
    '(operator_policies{service_name="operator", state=~"progressing|refused|rolled_back"}) > 0',
    "15m",
    "warning",
    "resilience",
    labels={"k8s_namespace_name": "plant", "service_name": "operator"},
    service="operator",
    cases=_cases(
        f'operator_policies{{{_OPERATOR}, state="progressing"}}',
        ("1x40", 20, True),
        ("1x10 0x40", 20, False),
        ("1x20 0x40", 30, False),
    ),
)

_FAILING = Alert(
    "AurumAIOperatorObjectsFailing",
    "Requests of the operator to the API server fail: {{ $labels.kind }}",
    "The last requests for {{ $value }} objects failed and are repeated. The log of {{ $labels.k8s_pod_name }} has "
    "the reasons.",
    'min_over_time(operator_objects_failing{service_name="operator"}[1m]) > 0',
    "5m",
    "warning",
    "resilience",
    service="operator",
    labels={
        "k8s_namespace_name": "plant",
        "service_name": "operator",
        "k8s_pod_name": "operator-1",
        "kind": "configmap",
    },
    cases=_cases(
        f'operator_objects_failing{{{_OPERATOR}, k8s_pod_name="operator-1", kind="configmap"}}',
        ("0x5 1x20", 13, True),
        ("0x5 1x3 0 1x3 0x20", 13, False),
        ("0x5 2x10 0x20", 25, False),
    ),
)

_REFUSED = Alert(
    "AurumAIPolicyRefused",
    f"{_SERVICE} refused its policy document",
    "{{ $labels.k8s_pod_name }} keeps the last good one. Its /policy and log name the error.",
    "min_over_time(policy_refused[1m]) == 1",
    "2m",
    "warning",
    "resilience",
    labels={**_ONE, "k8s_pod_name": "api-1"},
    cases=_cases(
        f'policy_refused{{{_PLANT}, k8s_pod_name="api-1"}}',
        ("1x20", 5, True),
        ("1 0x20", 5, False),
        ("1x8 0x20", 15, False),
    ),
)

# `rate` drops the metric's name, so a label keeps the series of one exporter apart.
_DROPPED = " or ".join(
    f'label_replace(rate({metric}[5m]), "metric", "{metric}", "", "")'
    for metric in (
        "spans_dropped_total",
        *(
            f"otelcol_exporter_{how}_failed_{what}_total"
            for how in ("enqueue", "send")
            for what in ("spans", "metric_points")
        ),
    )
)
_TELEMETRY = Alert(
    "AurumAITelemetryDropped",
    "Telemetry is dropped",
    "{{ $value | humanize }} spans and metric points per second are dropped before they reach their backends.",
    f"sum by (k8s_namespace_name) ({_DROPPED}) > 0.1",
    "5m",
    "warning",
    "infrastructure",
    service="telemetry",
    labels={"k8s_namespace_name": "plant"},
    cases=tuple(
        Case(
            {
                f"spans_dropped_total{{{_PLANT}}}": values,
                f"otelcol_exporter_send_failed_spans_total{{{_PLANT}}}": failed,
            },
            at,
            fires,
        )
        for values, failed, at, fires in (
            (_steady(0), _steady(60), 12, True),
            (_steady(60), _steady(0), 12, True),
            (_steady(1), _steady(1), 12, False),
            (_then_quiet(60, 15), _steady(0, 60), 24, False),
        )
    ),
)

_ABSENT = tuple(
    Alert(
        f"AurumAI{service.capitalize()}Absent",
        f"No {service} pod is monitored",
        f"Prometheus has not scraped any {service} pod for seven minutes. The service is down, or its telemetry is "
        "missing.",
        # The range selector excludes the last value, which an instant selector returns for five minutes
        f'absent(max_over_time(up{{service_name="{service}"}}[2m]) == 1)',
        "5m",
        "critical",
        "overview",
        service=service,
        cases=tuple(
            Case({f'up{{k8s_namespace_name="plant", service_name="{service}"}}': values}, at, fires)
            for values, at, fires in (("1x5 0x20", 15, True), ("1x30", 15, False), ("1x5 0x15 1x20", 28, False))
        ),
    )
    for service in SERVICES
)


def _burn(slo: Slo, window: Window) -> Alert:
    """Returns the alert that an objective's error budget is consumed too fast over a long and a short window.

    It is a multi-window, multi-burn-rate alert (The Site Reliability Workbook, chapter 5).
    """
    long, short = (f"{slo.record}:ratio{window_name(each)}" for each in (window.long, window.short))
    threshold = window.burn * (1 - slo.goal)
    guard = f" and on ({slo.by}) {slo.traffic}" if slo.traffic else ""
    name = f"AurumAI{slo.name}Burn{window.title}"
    healthy, burning = slo.healthy, slo.burning
    minutes = window.minutes + 10
    return Alert(
        name,
        f"{slo.title}: the error budget burns {window.burn:g} times too fast",
        f"Over {window.long}, {{{{ $value | humanizePercentage }}}} missed the objective of {slo.goal * 100:g} %.",
        f"({long} > {threshold:.6g} and on ({slo.by}) {short} > {threshold:.6g}){guard}",
        window.hold,
        window.severity,
        slo.dashboard,
        service=slo.service,
        labels=slo.labels,
        cases=(
            Case(burning(minutes * 2), minutes, True),
            Case(healthy(minutes * 2), minutes, False),
            Case(slo.recovering(minutes), minutes + window.short_minutes + 5, False),
        ),
    )


ALERTS: tuple[Alert, ...] = (
    _SLOW,
    _ERRORS,
    _BREAKER,
    _RETRIES,
    *(_burn(slo, window) for slo in SLOS for window in WINDOWS),
    _SPOOL,
    _DEAD_LETTERS,
    _INPUT,
    _INPUT_REFUSES,
    _INCOMPLETE,
    _DISK,
    _MERGE_LAG,
    _DAMAGED,
    _DRIFT,
    _POLICY,
    _FAILING,
    _REFUSED,
    _TELEMETRY,
    *_ABSENT,
)
