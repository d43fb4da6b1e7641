{{- define "aurumai.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* aurumai.selector: list of root and component */ -}}
{{- define "aurumai.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* aurumai.labels: list of root and component */ -}}
{{- define "aurumai.labels" -}}
{{- $root := index . 0 -}}
{{ include "aurumai.selector" . }}
app.kubernetes.io/part-of: aurumai
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- /* aurumai.image: list of root, name of the image, and the complete image reference if a value sets it */ -}}
{{- define "aurumai.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- $reference := index . 2 | default (printf "%s/%s:%s" $image.repository (index . 1) ($image.tag | default $root.Chart.AppVersion)) -}}
{{- include "aurumai.mirrored" (list $root $reference) -}}
{{- end -}}

{{- define "aurumai.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "aurumai.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ not .Values.writableRootFilesystem }}
capabilities: {drop: [ALL]}
{{- end -}}
