{{- define "observability.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* observability.selector: list of root and part */ -}}
{{- define "observability.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* observability.labels: list of root and part */ -}}
{{- define "observability.labels" -}}
{{- $root := index . 0 -}}
{{ include "observability.selector" . }}
app.kubernetes.io/part-of: aurumai
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "observability.prometheusUrl" -}}
{{- .Values.prometheus.url | default (printf "http://%s-prometheus:9090" (include "observability.fullname" .)) -}}
{{- end -}}

{{- define "observability.jaegerUrl" -}}
{{- .Values.jaeger.url | default (printf "http://%s-jaeger:16686" (include "observability.fullname" .)) -}}
{{- end -}}
