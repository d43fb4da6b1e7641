{{- /*
The parts of a release by name.

user        user id of the image                    arguments   of the container
ports       name → number, of its Service           config      files of its ConfigMap, mounted at configPath
ready       {port, path} of its readiness probe     from        parts that may call it
anyone      port that every pod may call            env         environment variables
dataPath    where it writes                         volume      {size, storageClass} of dataPath, if it is persistent

The peers in networkPolicy.peopleFrom may also call the port http.
*/ -}}
{{- define "observability.parts" -}}
{{- $values := .Values -}}
{{- $name := include "observability.fullname" . -}}
{{- if $values.collector.enabled }}
collector:
  user: 10001
  arguments: [--config=/etc/otelcol/collector.yaml]
  ports: {otlp: 4317}
  ready: {port: 13133, path: /}
  config:
    collector.yaml: {{ include "observability.collectorConfig" . | toJson }}
  configPath: /etc/otelcol
  env: {GOMEMLIMIT: {{ $values.collector.memoryLimitMiB }}MiB}
  anyone: otlp
  values: {{ toJson $values.collector }}
{{- end }}
{{- if $values.prometheus.enabled }}
prometheus:
  user: 65534
  arguments:
    - --config.file=/etc/prometheus/prometheus.yaml
    - --storage.tsdb.path=/data
    - --storage.tsdb.retention.time={{ $values.prometheus.retention }}
    - --web.enable-otlp-receiver
    - --enable-feature=exemplar-storage
  ports: {http: 9090}
  ready: {port: 9090, path: /-/ready}
  config:
    prometheus.yaml: {{ include "observability.prometheusConfig" . | toJson }}
    aurumai.rules.yaml: {{ include "observability.rules" . | toJson }}
  configPath: /etc/prometheus
  dataPath: /data
  {{- if $values.prometheus.persistence.enabled }}
  volume: {{ toJson $values.prometheus.persistence }}
  {{- end }}
  from: [collector, grafana]
  values: {{ toJson $values.prometheus }}
{{- end }}
{{- if $values.alertmanager.enabled }}
alertmanager:
  user: 65534
  arguments:
    - --config.file=/etc/alertmanager/alertmanager.yaml
    - --storage.path=/data
    - --cluster.listen-address=
  ports: {http: 9093}
  ready: {port: 9093, path: /-/ready}
  config:
    alertmanager.yaml: {{ include "observability.alertmanagerConfig" . | toJson }}
  configPath: /etc/alertmanager
  dataPath: /data
  from: [prometheus, grafana]
  values: {{ toJson $values.alertmanager }}
{{- end }}
{{- if $values.jaeger.enabled }}
jaeger:
  user: 10001
  arguments: [--config=/etc/jaeger/jaeger.yaml]
  ports: {http: 16686, otlp: 4317}
  ready: {port: 13133, path: /status}
  config:
    jaeger.yaml: {{ include "observability.jaegerConfig" . | toJson }}
  configPath: /etc/jaeger
  from: [collector, grafana]
  values: {{ toJson $values.jaeger }}
{{- end }}
{{- if $values.grafana.enabled }}
grafana:
  user: 472
  arguments: []
  ports: {http: 3000}
  ready: {port: 3000, path: /api/health}
  config:
    datasources.yaml: {{ include "observability.datasources" . | toJson }}
    dashboards.yaml: {{ include "observability.dashboardProvider" . | toJson }}
  configPath: /etc/grafana/provisioning/aurumai
  dataPath: /var/lib/grafana
  env:
    GF_PATHS_PROVISIONING: /etc/grafana/provisioning
    GF_ANALYTICS_REPORTING_ENABLED: "false"
    GF_ANALYTICS_CHECK_FOR_UPDATES: "false"
    GF_AUTH_ANONYMOUS_ENABLED: "true"
    GF_AUTH_ANONYMOUS_ORG_ROLE: Viewer
    {{- if not $values.grafana.existingSecret }}
    GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION: "true"
    {{- end }}
  from: []
  values: {{ toJson $values.grafana }}
{{- end }}
{{- end -}}
