{{- /* Span metrics count every span, before sampling; Jaeger receives the traces that tail sampling keeps. */ -}}
{{- define "observability.collectorConfig" -}}
{{- $collector := .Values.collector -}}
{{- $traces := or .Values.jaeger.enabled .Values.jaeger.target -}}
{{- $metrics := or .Values.prometheus.enabled .Values.prometheus.url -}}
extensions:
  health_check:
    endpoint: 0.0.0.0:13133

receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
        max_recv_msg_size_mib: 8
  prometheus:
    config:
      scrape_configs:
        - job_name: gateway-collector
          scrape_interval: {{ $collector.scrapeInterval }}s
          static_configs: [{targets: ["127.0.0.1:8888"]}]
          metric_relabel_configs:
            - source_labels: [__name__]
              regex: otelcol_(exporter_(sent|send_failed|enqueue_failed|queue)|receiver_(refused|accepted)|processor_(refused|tail_sampling_(sampling_trace_dropped_too_early|count_traces_sampled))|process_(memory_rss|cpu_seconds)).*
              action: keep

connectors:
  spanmetrics:
    histogram:
      unit: s
      explicit:
        buckets: [5ms, 10ms, 25ms, 50ms, 100ms, 250ms, 500ms, 1s, 2500ms, 5s, 10s]
    dimensions:
      - name: http.route
      - name: http.response.status_code
      - name: rpc.grpc.status_code
      - name: peer.service
    exemplars:
      enabled: true
      max_per_data_point: {{ $collector.exemplars.perDataPoint }}
    aggregation_cardinality_limit: 1000
    metrics_expiration: 10m
    metrics_flush_interval: 15s

processors:
  memory_limiter:
    check_interval: 1s
    limit_mib: {{ $collector.memoryLimitMiB }}
    spike_limit_mib: {{ div $collector.memoryLimitMiB 5 }}
  resource: # for the gateway's own metrics, which pass through no collector of a pod
    attributes:
      - {key: k8s.namespace.name, value: {{ .Release.Namespace }}, action: insert}
  batch:
    timeout: 1s
    send_batch_size: 1024
    send_batch_max_size: 2048
  tail_sampling:
    decision_wait: {{ $collector.sampling.decisionWaitSeconds }}s
    num_traces: {{ $collector.sampling.maxTraces }}
    policies:
      - name: errors
        type: status_code
        status_code: {status_codes: [ERROR]}
      - name: slow
        type: latency
        latency: {threshold_ms: {{ mulf $collector.sampling.slowSeconds 1000 | int }}}
      - name: degraded
        type: boolean_attribute
        boolean_attribute: {key: aurum.degraded, value: true}
      - name: ordinary
        type: probabilistic
        probabilistic: {sampling_percentage: {{ $collector.sampling.percentage }}}

exporters:
  {{- if $traces }}
  otlp/traces:
    endpoint: {{ .Values.jaeger.target | default (printf "%s-jaeger:4317" (include "observability.fullname" .)) }}
    tls: {insecure: true}
    timeout: 5s
    sending_queue: {num_consumers: 4, queue_size: 500}
    retry_on_failure: {initial_interval: 1s, max_interval: 10s, max_elapsed_time: {{ $collector.retrySeconds }}s}
  {{- end }}
  {{- if $metrics }}
  otlphttp/metrics:
    endpoint: {{ include "observability.prometheusUrl" . }}/api/v1/otlp
    timeout: 5s
    sending_queue: {num_consumers: 2, queue_size: 500}
    retry_on_failure: {initial_interval: 1s, max_interval: 10s, max_elapsed_time: {{ $collector.retrySeconds }}s}
  {{- end }}
  {{- if $collector.auditTarget }}
  otlp/audit:
    endpoint: {{ $collector.auditTarget }}
    tls: {insecure: {{ $collector.auditInsecure }}}
    timeout: 5s
    sending_queue: {num_consumers: 1, queue_size: 500}
    retry_on_failure: {initial_interval: 1s, max_interval: 10s, max_elapsed_time: {{ $collector.retrySeconds }}s}
  {{- else }}
  debug/audit: # into the gateway's own log
    verbosity: detailed
    use_internal_logger: false # the internal logger writes warnings only
  {{- end }}
  {{- if not (and $traces $metrics) }}
  nop: {}
  {{- end }}

service:
  extensions: [health_check]
  telemetry:
    logs: {level: warn, encoding: json}
    metrics:
      level: normal
      readers:
        - pull: {exporter: {prometheus: {host: 127.0.0.1, port: 8888}}}
  pipelines:
    traces/measured:
      receivers: [otlp]
      processors: [memory_limiter]
      exporters: [spanmetrics]
    traces/kept:
      receivers: [otlp]
      processors: [memory_limiter, tail_sampling, batch]
      exporters: [{{ ternary "otlp/traces" "nop" (not (not $traces)) }}]
    logs/audit:
      receivers: [otlp]
      processors: [memory_limiter, batch]
      exporters: [{{ ternary "otlp/audit" "debug/audit" (not (not $collector.auditTarget)) }}]
    metrics:
      receivers: [otlp, spanmetrics, prometheus]
      processors: [memory_limiter, resource, batch]
      exporters: [{{ ternary "otlphttp/metrics" "nop" (not (not $metrics)) }}]
{{- end -}}

{{- /* The rules, with the base URLs of their links. */ -}}
{{- define "observability.rules" -}}
{{- .Values.rules.file | default (.Files.Get "rules/aurumai.rules.yaml")
    | replace "runbook_url: docs/" (printf "runbook_url: %sdocs/" (include "observability.docs" .))
    | replace "dashboard_url: /d/" (printf "dashboard_url: %s/d/" (trimSuffix "/" .Values.links.grafana)) -}}
{{- end -}}

{{- define "observability.docs" -}}
{{- with .Values.links.docs }}{{ trimSuffix "/" . }}/{{ end -}}
{{- end -}}

{{- define "observability.prometheusConfig" -}}
{{- $name := include "observability.fullname" . -}}
global:
  scrape_interval: 15s
  evaluation_interval: 15s
otlp:
  promote_resource_attributes:
    - service.name
    - service.version
    - deployment.environment.name
    - k8s.namespace.name
    - k8s.pod.name
    - k8s.node.name
storage:
  tsdb: {out_of_order_time_window: 10m} # for data that collectors queued while the gateway was unavailable
  exemplars: {max_exemplars: {{ .Values.prometheus.maxExemplars }}}
rule_files: [/etc/prometheus/*.rules.yaml]
{{- if or .Values.alertmanager.enabled .Values.alertmanager.target }}
alerting:
  alertmanagers:
    - static_configs: [{targets: [{{ .Values.alertmanager.target | default (printf "%s-alertmanager:9093" $name) | quote }}]}]
{{- end }}
scrape_configs:
  - job_name: prometheus
    static_configs: [{targets: ["127.0.0.1:9090"]}]
  {{- if .Values.alertmanager.enabled }}
  - job_name: alertmanager
    static_configs: [{targets: ["{{ $name }}-alertmanager:9093"]}]
  {{- end }}
{{- end -}}

{{- define "observability.alertmanagerConfig" -}}
route:
  receiver: {{ ternary "webhook" "nobody" (not (not .Values.alertmanager.webhookUrl)) }}
  group_by: [alertname, service]
  group_wait: 15s
  group_interval: 1m
  repeat_interval: 4h
receivers:
  - name: nobody
  {{- with .Values.alertmanager.webhookUrl }}
  - name: webhook
    webhook_configs: [{url: {{ . | quote }}, send_resolved: true}]
  {{- end }}
{{- end -}}

{{- define "observability.jaegerConfig" -}}
extensions:
  healthcheckv2:
    use_v2: true
    http: {endpoint: "0.0.0.0:13133"}
  jaeger_storage:
    backends:
      main: {memory: {max_traces: {{ .Values.jaeger.maxTraces }}}}
  jaeger_query:
    storage: {traces: main}
    http: {endpoint: "0.0.0.0:16686"}
    grpc: {endpoint: "127.0.0.1:16685"}
receivers:
  otlp:
    protocols: {grpc: {endpoint: "0.0.0.0:4317"}}
processors:
  batch: {timeout: 500ms}
exporters:
  jaeger_storage_exporter: {trace_storage: main}
service:
  extensions: [healthcheckv2, jaeger_storage, jaeger_query]
  telemetry:
    logs: {level: warn}
    metrics: {level: none}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}
{{- end -}}

{{- define "observability.datasources" -}}
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    url: {{ include "observability.prometheusUrl" . }}
    isDefault: true
    jsonData:
      exemplarTraceIdDestinations: [{name: trace_id, datasourceUid: jaeger}]
  - name: Jaeger
    uid: jaeger
    type: jaeger
    url: {{ include "observability.jaegerUrl" . }}
    {{- if .Values.grafana.lokiUrl }}
    jsonData:
      tracesToLogsV2: {datasourceUid: loki, filterByTraceID: true, tags: [{key: k8s.pod.name, value: pod}]}
    {{- end }}
  {{- with .Values.grafana.lokiUrl }}
  - name: Loki
    uid: loki
    type: loki
    url: {{ . }}
    jsonData:
      derivedFields: [{name: trace, matcherRegex: '"trace_id": "(\w+)"', datasourceUid: jaeger, url: "$${__value.raw}"}]
  {{- end }}
{{- end -}}

{{- define "observability.dashboardProvider" -}}
apiVersion: 1
providers:
  - name: aurumai
    folder: AurumAI
    options: {path: /var/lib/aurumai-dashboards}
{{- end -}}
