{{- /* The collector of a pod, as a native sidecar: it starts before the service and stops after it.
aurumai.collector: dict of root and name. It has no readiness probe, because a service is ready without telemetry. */ -}}
{{- define "aurumai.collector" -}}
{{- $collector := .root.Values.telemetry.collector -}}
- name: collector
  image: {{ include "aurumai.mirrored" (list .root $collector.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  restartPolicy: Always
  args: [--config=/etc/otelcol/collector.yaml]
  env:
    - {name: SERVICE_NAME, value: {{ .name }}}
    - {name: SERVICE_VERSION, value: {{ .root.Chart.AppVersion | quote }}}
    - {name: ENVIRONMENT, value: {{ .root.Values.environment | quote }}}
    - {name: GOMEMLIMIT, value: {{ $collector.memoryLimitMiB }}MiB}
    - {name: GOMAXPROCS, value: "1"}
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: POD_UID
      valueFrom: {fieldRef: {fieldPath: metadata.uid}}
    - name: NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: NODE_NAME
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  livenessProbe:
    httpGet: {path: /, port: 13133}
    periodSeconds: 20
    timeoutSeconds: 5
    failureThreshold: 6
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  resources:
    {{- toYaml $collector.resources | nindent 4 }}
  volumeMounts:
    - {name: collector, mountPath: /etc/otelcol, readOnly: true}
{{- end -}}

{{- define "aurumai.collectorConfig" -}}
{{- $collector := .Values.telemetry.collector -}}
extensions:
  health_check:
    endpoint: 0.0.0.0:13133

receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 127.0.0.1:4317
        max_recv_msg_size_mib: 4
  prometheus:
    config:
      global:
        scrape_interval: {{ $collector.scrapeInterval }}s
        scrape_timeout: 5s
      scrape_configs:
        - job_name: ${env:SERVICE_NAME}
          static_configs: [{targets: ["127.0.0.1:9090"]}]
        - job_name: collector
          static_configs: [{targets: ["127.0.0.1:8888"]}]
          metric_relabel_configs: # those that show the loss and the cost of telemetry
            - source_labels: [__name__]
              regex: otelcol_(exporter_(sent|send_failed|enqueue_failed|queue)|receiver_(refused|accepted)|processor_refused|process_(memory_rss|cpu_seconds)).*
              action: keep

processors:
  memory_limiter:
    check_interval: 1s
    limit_mib: {{ $collector.memoryLimitMiB }}
    spike_limit_mib: {{ div $collector.memoryLimitMiB 5 }}
  resource:
    attributes:
      - {key: service.namespace, value: aurumai, action: upsert}
      - {key: service.instance.id, value: "${env:POD_NAME}", action: upsert}
      - {key: service.version, value: "${env:SERVICE_VERSION}", action: insert}
      - {key: deployment.environment.name, value: "${env:ENVIRONMENT}", action: insert}
      - {key: k8s.namespace.name, value: "${env:NAMESPACE}", action: upsert}
      - {key: k8s.pod.name, value: "${env:POD_NAME}", action: upsert}
      - {key: k8s.pod.uid, value: "${env:POD_UID}", action: upsert}
      - {key: k8s.node.name, value: "${env:NODE_NAME}", action: upsert}
  batch:
    timeout: 1s
    send_batch_size: 512
    send_batch_max_size: 1024

exporters:
  otlp:
    endpoint: {{ .Values.telemetry.gateway }}
    tls: {insecure: true}
    timeout: 5s
    sending_queue: {num_consumers: 2, queue_size: {{ $collector.queueSize }}}
    retry_on_failure: {initial_interval: 1s, max_interval: 10s, max_elapsed_time: 120s}

service:
  extensions: [health_check]
  telemetry:
    logs: {level: warn, encoding: json}
    metrics:
      level: normal
      readers:
        - pull: {exporter: {prometheus: {host: 127.0.0.1, port: 8888}}}
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, resource, batch]
      exporters: [otlp]
    logs: # the audit log
      receivers: [otlp]
      processors: [memory_limiter, resource, batch]
      exporters: [otlp]
    metrics:
      receivers: [prometheus]
      processors: [memory_limiter, resource, batch]
      exporters: [otlp]
{{- end -}}
