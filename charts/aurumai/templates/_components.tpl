{{- /*
The components of a release by name, with everything in which they differ. The other templates create their objects.

image       name of the image                     values   the component's part of the values
kind        Deployment, StatefulSet or CronJob    port     gRPC or, for the API, HTTP; none for operator and simulators
arguments   of the container                      env      settings that the chart derives
fieldEnv    settings that are fields of the pod
calls       services that it calls                volume   {size, storageClass} of its persistent state, if any
token       whether it has a Kubernetes token     asks     whether it queries the admin servers of the others
files       whether it has configuration files    mounts   {name, path, secret or claim} of further volumes
*/ -}}
{{- define "aurumai.components" -}}
{{- $name := include "aurumai.fullname" . -}}
{{- $values := .Values -}}
{{- $cassandra := eq .Values.store.type "cassandra" -}}
{{- $device := ternary "edge" "ingestion" .Values.edge.enabled -}}
api:
  image: api
  kind: Deployment
  arguments: [api]
  port: 8000
  env:
    AURUM_API_HOST: 0.0.0.0
    AURUM_API_FIRST_LOOK: "60" # during an upgrade the old API pods serve while the single ingestion pod restarts
    AURUM_INGESTION_TARGET: {{ $name }}-ingestion:50051
    AURUM_PREDICTION_TARGET: {{ $name }}-prediction:50051
    AURUM_ADMIN_TARGETS: {{ include "aurumai.adminTargets" . | quote }}
    {{- include "aurumai.apiSecurity" . | nindent 4 }}
    {{- if .Values.alarms.rules }}
    AURUM_ALARM_RULES: /etc/aurum/files/alarms.yaml
    {{- end }}
    {{- with .Values.accounting }}
    {{- if .plan }}
    AURUM_SUSTAINABILITY_PLAN: /etc/aurum/files/plan.yaml
    {{- end }}
    {{- if .costs }}
    AURUM_COSTS_FILE: /etc/aurum/files/costs.yaml
    {{- end }}
    {{- if .factors }}
    AURUM_SUSTAINABILITY_FACTORS: /etc/aurum/files/factors.csv
    {{- end }}
    {{- if .hourlyFactors }}
    AURUM_SUSTAINABILITY_HOURLY_FACTORS: /etc/aurum/files/hourly-factors.csv
    {{- end }}
    {{- if ne .provider.type "none" }}
    AURUM_SUSTAINABILITY_PROVIDER: {{ .provider.type }}
    AURUM_SUSTAINABILITY_PROVIDER_URL: {{ .provider.url | quote }}
    {{- end }}
    {{- end }}
  secretEnv:
    {{- with .Values.accounting.provider.existingSecret }}
    AURUM_SUSTAINABILITY_PROVIDER_KEY: {name: {{ . }}, key: key}
    {{- end }}
    {{- if ne .Values.security.api.open "everybody-may-do-everything" }}
    AURUM_AUTH_SESSION_SECRET: {name: {{ .Values.security.api.sessionSecret | default (printf "%s-sessions" $name) }}, key: secret}
    {{- end }}
  keys: {{ .Values.security.api.keysSecret | quote }}
  calls: [ingestion, prediction]
  asks: true
  files: {{ include "aurumai.files" (list . "api") | fromYaml | empty | not }}
  values: {{ toJson $values.api }}
ingestion:
  image: ingestion
  kind: {{ ternary "Deployment" "StatefulSet" $cassandra }}
  arguments: [ingestion]
  port: 50051
  env:
    AURUM_INGESTION_HOST: 0.0.0.0
    AURUM_INGESTION_PORT: "50051"
    {{- if .Values.store.url }}
    AURUM_STORE_URL: {{ .Values.store.url | quote }}
    {{- end }}
  {{- if .Values.store.existingSecret }}
  secretEnv:
    AURUM_STORE_USERNAME: {name: {{ .Values.store.existingSecret }}, key: username}
    AURUM_STORE_PASSWORD: {name: {{ .Values.store.existingSecret }}, key: password}
  {{- end }}
  calls: []
  {{- if and (not $cassandra) $values.ingestion.persistence.enabled }}
  volume: {{ toJson $values.ingestion.persistence }}
  {{- end }}
  values: {{ toJson $values.ingestion }}
prediction:
  image: prediction
  kind: Deployment
  arguments: [prediction]
  port: 50051
  env:
    AURUM_PREDICTION_HOST: 0.0.0.0
    AURUM_PREDICTION_PORT: "50051"
    AURUM_INGESTION_TARGET: {{ $name }}-ingestion:50051
    AURUM_MODEL_DIR: /var/lib/aurum/models
    AURUM_PREDICTION_PEERS: {{ $name }}-prediction:50051
    OMP_NUM_THREADS: "1"
    {{- if .Values.alarms.rules }}
    AURUM_ALARM_RULES: /etc/aurum/files/alarms.yaml
    {{- end }}
  fieldEnv:
    AURUM_PREDICTION_OWN_ADDRESS: status.podIP
  calls: [ingestion, prediction] # scorers check each other's health
  models: true
  files: {{ empty .Values.alarms.rules | not }}
  values: {{ toJson $values.prediction }}
{{- if .Values.learning.enabled }}
learning:
  image: learning
  kind: CronJob
  arguments: {{ concat (list "learn" "--ingestion" (printf "%s-ingestion:50051" $name)) .Values.learning.arguments | toJson }}
  env:
    AURUM_MODEL_DIR: /var/lib/aurum/models
    AURUM_LEARN_AGREEMENT: {{ .Values.learning.agreement | quote }}
    OMP_NUM_THREADS: "1"
  calls: [ingestion]
  models: true
  values: {{ merge (dict "models" $values.prediction.models) $values.learning | toJson }}
{{- end }}
{{- if .Values.edge.enabled }}
edge:
  image: edge
  kind: StatefulSet
  arguments: [edge]
  port: 50051
  env:
    AURUM_EDGE_HOST: 0.0.0.0
    AURUM_EDGE_PORT: "50051"
    AURUM_INGESTION_TARGET: {{ $name }}-ingestion:50051
    {{- if .Values.edge.inputs }}
    AURUM_EDGE_INPUTS: /etc/aurum/files/inputs.yaml
    {{- end }}
  calls: [ingestion]
  files: {{ empty .Values.edge.inputs | not }}
  mounts:
    {{- with .Values.edge.inputsSecret }}
    - {name: inputs, path: /etc/aurum/inputs, secret: {{ . }}}
    {{- end }}
    {{- with .Values.edge.dropsClaim }}
    - {name: drops, path: /var/lib/aurum/drops, claim: {{ . }}}
    {{- end }}
  {{- if $values.edge.persistence.enabled }}
  volume: {{ toJson $values.edge.persistence }}
  {{- end }}
  values: {{ toJson $values.edge }}
{{- end }}
{{- if .Values.operator.enabled }}
operator:
  image: operator
  kind: Deployment
  arguments: [operator]
  env:
    AURUM_OPERATOR_RELEASE: {{ .Release.Name | quote }}
    AURUM_OPERATOR_DEFAULTS: {{ $name }}-policy
    {{- with $values.operator.prometheusUrl }}
    AURUM_OPERATOR_PROMETHEUS_URL: {{ . | quote }}
    {{- end }}
  calls: []
  asks: true
  token: true
  values: {{ toJson $values.operator }}
{{- end }}
{{- if .Values.simulators.enabled }}
iot-sim:
  image: simulators
  kind: Deployment
  arguments: {{ concat (list "iot-sim" "--to" $device) .Values.simulators.iot.arguments | toJson }}
  env:
    AURUM_EDGE_TARGET: {{ $name }}-edge:50051
    AURUM_INGESTION_TARGET: {{ $name }}-ingestion:50051
    AURUM_IOT_MACHINES: {{ $values.simulators.iot.machines | quote }}
  calls: [{{ $device }}]
  values: {{ merge (dict "image" $values.simulators.image) $values.simulators.iot | toJson }}
edge-sim:
  image: simulators
  kind: Deployment
  arguments: {{ concat (list "edge-sim") .Values.simulators.edge.arguments | toJson }}
  env:
    AURUM_INGESTION_TARGET: {{ $name }}-ingestion:50051
    AURUM_EDGE_SIM_MACHINES: {{ $values.simulators.edge.machines | quote }}
  calls: [ingestion]
  values: {{ merge (dict "image" $values.simulators.image) $values.simulators.edge | toJson }}
{{- end }}
{{- end -}}

{{- define "aurumai.adminTargets" -}}
{{- $name := include "aurumai.fullname" . -}}
{{- $services := list "ingestion" "prediction" -}}
{{- if .Values.edge.enabled }}{{ $services = append $services "edge" }}{{ end -}}
{{- if .Values.operator.enabled }}{{ $services = append $services "operator" }}{{ end -}}
{{- if .Values.simulators.enabled }}{{ $services = concat $services (list "iot-sim" "edge-sim") }}{{ end -}}
{{- $targets := list (printf "api=%s-api-pods:9090" $name) -}}
{{- range $services }}{{ $targets = append $targets (printf "%s=%s-%s:9090" . $name .) }}{{ end -}}
{{- join "," $targets -}}
{{- end -}}

{{- define "aurumai.apiSecurity" -}}
{{- with .Values.security.api -}}
AURUM_AUTH_OPEN: {{ .open | quote }}
AURUM_API_RATE: {{ .rate | quote }}
AURUM_API_RATE_BURST: {{ .burst | quote }}
{{- if .trustedProxies }}
AURUM_API_TRUSTED_PROXIES: {{ join "," .trustedProxies | quote }}
{{- end }}
{{- if .keysSecret }}
AURUM_AUTH_KEYS_FILE: /etc/aurum/keys/keys.yaml
{{- end }}
{{- if .oidc.issuer }}
AURUM_AUTH_OIDC_ISSUER: {{ .oidc.issuer | quote }}
AURUM_AUTH_OIDC_AUDIENCE: {{ .oidc.audience | quote }}
AURUM_AUTH_OIDC_ROLES_CLAIM: {{ .oidc.rolesClaim | quote }}
AURUM_AUTH_OIDC_SITES_CLAIM: {{ .oidc.sitesClaim | quote }}
{{- with .oidc.jwksUrl }}
AURUM_AUTH_OIDC_JWKS_URL: {{ . | quote }}
{{- end }}
{{- $names := list }}
{{- range $name, $role := .oidc.roleNames }}{{ $names = append $names (printf "%s=%s" $name $role) }}{{ end }}
{{- with $names }}
AURUM_AUTH_OIDC_ROLE_NAMES: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* Rejects inconsistent values with a message. */ -}}
{{- define "aurumai.check" -}}
{{- $cassandra := eq .Values.store.type "cassandra" -}}
{{- if and $cassandra (not .Values.store.url) -}}
{{- fail "store.url: must be cassandra://HOST,HOST/KEYSPACE?replication=3 when store.type is cassandra" -}}
{{- end -}}
{{- if and (not $cassandra) .Values.store.url -}}
{{- fail "store.url: is for store.type cassandra; an SQLite store is on the volume of the ingestion pod" -}}
{{- end -}}
{{- if and (not $cassandra) .Values.store.existingSecret -}}
{{- fail "store.existingSecret: is for store.type cassandra" -}}
{{- end -}}
{{- if and (not $cassandra) (gt (int .Values.ingestion.replicas) 1) -}}
{{- fail "ingestion.replicas: more than one pod needs store.type cassandra, because only one pod can use an SQLite store" -}}
{{- end -}}
{{- with .Values.accounting.provider -}}
{{- if and (ne .type "none") (not .url) -}}
{{- fail (printf "accounting.provider.url: is needed when accounting.provider.type is %s" .type) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.learning.enabled (not .Values.prediction.models.existingClaim) -}}
{{- fail "learning.enabled: needs prediction.models.existingClaim, a volume that the pods of prediction share with the job" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.host: is needed when ingress.enabled is true" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: at least one Gateway is needed when httpRoute.enabled is true" -}}
{{- end -}}
{{- range $name := list "api" "prediction" -}}
{{- $part := index $.Values $name -}}
{{- if and $part.autoscaling.enabled (lt (int $part.autoscaling.maxReplicas) (int $part.replicas)) -}}
{{- fail (printf "%s.autoscaling.maxReplicas: is below %s.replicas" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.operator.enabled -}}
{{- if eq .Values.security.tls.mode "self_signed" -}}
{{- fail "security.tls.mode: self_signed needs operator.enabled, since the operator issues the certificates; set cert_manager, secrets or none" -}}
{{- end -}}
{{- if and (ne .Values.security.admin.open "everybody-may-do-everything") (not .Values.security.admin.tokenSecret) -}}
{{- fail "security.admin.tokenSecret: is needed without operator.enabled, since the operator creates the token; or set security.admin.open" -}}
{{- end -}}
{{- if and (ne .Values.security.api.open "everybody-may-do-everything") (not .Values.security.api.sessionSecret) -}}
{{- fail "security.api.sessionSecret: is needed without operator.enabled, since the operator creates the secret" -}}
{{- end -}}
{{- end -}}
{{- with .Values.security.api -}}
{{- if and (ne .open "everybody-may-do-everything") (not .keysSecret) (not .oidc.issuer) -}}
{{- fail "security.api: no caller could authenticate; set keysSecret (aurum key create) or oidc.issuer, or open: everybody-may-do-everything" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* aurumai.files: list of root and name. The configuration files of a service by file name; empty if it has none or
uses the built-in ones. */ -}}
{{- define "aurumai.files" -}}
{{- $root := first . -}}
{{- if eq (last .) "api" }}{{ include "aurumai.apiFiles" $root }}{{ end -}}
{{- if eq (last .) "prediction" }}{{ include "aurumai.alarmFiles" $root }}{{ end -}}
{{- if eq (last .) "edge" }}
{{- with $root.Values.edge.inputs }}
inputs.yaml: |
  {{- dict "inputs" . | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "aurumai.alarmFiles" -}}
{{- with .Values.alarms.rules }}
alarms.yaml: |
  {{- dict "rules" . | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "aurumai.apiFiles" -}}
{{- include "aurumai.alarmFiles" . }}
{{- with .Values.accounting }}
{{- with .plan }}
plan.yaml: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .costs }}
costs.yaml: |
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .factors }}
factors.csv: |
  {{- . | nindent 2 }}
{{- end }}
{{- with .hourlyFactors }}
hourly-factors.csv: |
  {{- . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
