{{- /* aurumai.pod: dict of root, name and component */ -}}
{{- define "aurumai.pod" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $values := $component.values -}}
{{- $fullname := include "aurumai.fullname" $root -}}
{{- $job := eq $component.kind "CronJob" -}}
{{- $tls := and (ne $root.Values.security.tls.mode "none") (has .name (include "aurumai.rpcServices" $root | fromYamlArray)) -}}
{{- $admin := ne $root.Values.security.admin.open "everybody-may-do-everything" -}}
{{- $collector := ternary (dict "enabled" false) $root.Values.telemetry.collector $job -}}
metadata:
  labels:
    {{- merge (include "aurumai.labels" (list $root .name) | fromYaml) ($values.podLabels | default dict) | toYaml | nindent 4 }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .name }}
    {{- if $collector.enabled }}
    checksum/collector: {{ include "aurumai.collectorConfig" $root | sha256sum }}
    {{- end }}
    {{- if $component.files }}
    checksum/files: {{ include "aurumai.files" (list $root .name) | sha256sum }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ $fullname }}-{{ .name }}
  automountServiceAccountToken: false
  {{- if $job }}
  restartPolicy: Never
  {{- end }}
  enableServiceLinks: false # a release named aurum would set AURUM_API_PORT
  terminationGracePeriodSeconds: {{ add $root.Values.drainSeconds 15 }}
  securityContext:
    {{- include "aurumai.podSecurity" $root | nindent 4 }}
  {{- include "aurumai.pullSecrets" (list $root $root.Values.image.pullSecrets) | nindent 2 }}
  {{- include "aurumai.scheduling" (dict "selector" (include "aurumai.selector" (list $root .name)) "values" $values) | nindent 2 }}
  {{- if or $collector.enabled $component.models }}
  initContainers:
    {{- if $collector.enabled }}
    {{- include "aurumai.collector" (dict "root" $root "name" .name) | nindent 4 }}
    {{- end }}
    {{- if $component.models }}
    - name: models
      image: {{ include "aurumai.image" (list $root $component.image $values.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      command: [cp, --recursive, --update=none, /opt/models/., /var/lib/aurum/models/]
      securityContext:
        {{- include "aurumai.containerSecurity" $root | nindent 8 }}
      resources:
        {{- toYaml $values.models.resources | nindent 8 }}
      volumeMounts:
        - {name: models, mountPath: /var/lib/aurum/models}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "aurumai.image" (list $root $component.image $values.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ toJson $component.arguments }}
      env:
        {{- include "aurumai.env" (dict "root" $root "name" .name "component" $component) | nindent 8 }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if not $job }}
      ports:
        {{- if $component.port }}
        - {name: {{ include "aurumai.portName" $component }}, containerPort: {{ $component.port }}}
        {{- end }}
        - {name: admin, containerPort: 9090}
      startupProbe:
        {{- include "aurumai.ready" (list $root $component) | nindent 8 }}
        periodSeconds: 1
        timeoutSeconds: 2
        failureThreshold: 120
      readinessProbe:
        {{- include "aurumai.ready" (list $root $component) | nindent 8 }}
        periodSeconds: 5
        timeoutSeconds: 3
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      {{- end }}
      securityContext:
        {{- include "aurumai.containerSecurity" $root | nindent 8 }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      volumeMounts:
        - {name: state, mountPath: /var/lib/aurum}
        - {name: tmp, mountPath: /tmp}
        - {name: policy, mountPath: /etc/aurum/policy, readOnly: true}
        {{- if $admin }}
        - {name: admin, mountPath: /etc/aurum/admin, readOnly: true}
        {{- end }}
        {{- if $tls }}
        - {name: tls, mountPath: /etc/aurum/tls, readOnly: true}
        - {name: clients, mountPath: /etc/aurum/clients, readOnly: true}
        {{- end }}
        {{- if $component.keys }}
        - {name: keys, mountPath: /etc/aurum/keys, readOnly: true}
        {{- end }}
        {{- if $component.models }}
        - {name: models, mountPath: /var/lib/aurum/models}
        {{- end }}
        {{- if $component.files }}
        - {name: files, mountPath: /etc/aurum/files, readOnly: true}
        {{- end }}
        {{- range $component.mounts }}
        - {name: {{ .name }}, mountPath: {{ .path }}{{ if .secret }}, readOnly: true{{ end }}}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if $component.token }}
        - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- end }}
  volumes:
    {{- if not $component.volume }}
    - name: state
      emptyDir: {sizeLimit: 4Gi}
    {{- else if $component.volume.existingClaim }}
    - name: state
      persistentVolumeClaim: {claimName: {{ $component.volume.existingClaim }}}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: 64Mi}
    - name: policy # replaced as a whole: the document of the chart, those of the operator, and the track that selects one of these
      projected:
        sources:
          - configMap: {name: {{ $fullname }}-policy}
          {{- if $root.Values.operator.enabled }}
          - configMap: {name: {{ $fullname }}-{{ .name }}-policy, optional: true}
          - downwardAPI:
              items: [{path: track, fieldRef: {fieldPath: "metadata.annotations['aurumai.io/policy-track']"}}]
          {{- end }}
    {{- if $admin }}
    - name: admin
      secret:
        secretName: {{ $root.Values.security.admin.tokenSecret | default (printf "%s-admin" $fullname) }}
        defaultMode: 0440
        {{- if $component.token }}
        optional: true # the operator creates it
        {{- end }}
    {{- end }}
    {{- if $tls }}
    - name: tls
      secret: {secretName: {{ $fullname }}-{{ .name }}-tls, defaultMode: 0440}
    - name: clients
      configMap: {name: {{ $fullname }}-clients}
    {{- end }}
    {{- with $component.keys }}
    - name: keys
      secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: keys.yaml, path: keys.yaml}]}
    {{- end }}
    {{- if $component.models }}
    - name: models
      {{- if $values.models.existingClaim }}
      persistentVolumeClaim: {claimName: {{ $values.models.existingClaim }}}
      {{- else }}
      emptyDir: {sizeLimit: 1Gi}
      {{- end }}
    {{- end }}
    {{- if $component.files }}
    - name: files
      configMap: {name: {{ $fullname }}-{{ .name }}-files}
    {{- end }}
    {{- range $component.mounts }}
    - name: {{ .name }}
      {{- if .secret }}
      secret: {secretName: {{ .secret }}, defaultMode: 0440}
      {{- else }}
      persistentVolumeClaim: {claimName: {{ .claim }}}
      {{- end }}
    {{- end }}
    {{- if $component.token }}
    - name: token # mounted into this container only, not into the collector
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3607}
          - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
          - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if $collector.enabled }}
    - name: collector
      configMap: {name: {{ $fullname }}-collector}
    {{- end }}
{{- end -}}

{{- define "aurumai.portName" -}}
{{ ternary "http" "grpc" (eq (int .port) 8000) }}
{{- end -}}

{{- /* The readiness check: the gRPC health protocol; HTTP for the API, for components without a server port, and with
mutual TLS, because the kubelet has no client certificate. */ -}}
{{- define "aurumai.ready" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- if eq (int ($component.port | default 0)) 8000 -}}
httpGet: {path: /readyz, port: http}
{{- else if or (not $component.port) (ne $root.Values.security.tls.mode "none") -}}
httpGet: {path: /readyz, port: admin}
{{- else -}}
grpc: {port: {{ $component.port }}}
{{- end -}}
{{- end -}}

{{- define "aurumai.env" -}}
{{- $root := .root -}}
{{- $telemetry := $root.Values.telemetry -}}
{{- $own := dict
  "AURUM_ENVIRONMENT" $root.Values.environment
  "AURUM_ADMIN_HOST" "0.0.0.0"
  "AURUM_ADMIN_PORT" "9090"
  "AURUM_POLICY_FILE" "/etc/aurum/policy"
  "AURUM_SHUTDOWN_DRAIN" (ternary (toString $root.Values.drainSeconds) "0" (hasKey .component "port"))
  "AURUM_TRACING_OTLP_ENDPOINT" (ternary "http://127.0.0.1:4317" (printf "http://%s" $telemetry.gateway) $telemetry.collector.enabled)
  "AURUM_TRACING_SAMPLE_RATIO" (toString $telemetry.sampleRatio)
-}}
{{- if has .name (include "aurumai.rpcServices" $root | fromYamlArray) -}}
{{- if eq $root.Values.security.tls.mode "none" -}}
{{- $_ := set $own "AURUM_RPC_OPEN" "everybody-may-do-everything" -}}
{{- else -}}
{{- $_ := set $own "AURUM_RPC_TLS_FOLDER" "/etc/aurum/tls" -}}
{{- $_ := set $own "AURUM_RPC_CLIENTS_FILE" "/etc/aurum/clients/clients.yaml" -}}
{{- end -}}
{{- end -}}
{{- $admin := $root.Values.security.admin -}}
{{- if eq $admin.open "everybody-may-do-everything" -}}
{{- $_ := set $own "AURUM_ADMIN_OPEN" $admin.open -}}
{{- else -}}
{{- $_ := set $own "AURUM_ADMIN_TOKEN_FOLDER" "/etc/aurum/admin" -}}
{{- end -}}
{{- if .component.token -}}
{{- $_ := merge $own (include "aurumai.operatorCredentials" $root | fromYaml) -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $own .component.env $root.Values.settings (.component.values.settings | default dict) }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- range $name, $path := .component.fieldEnv }}
- name: {{ $name }}
  valueFrom: {fieldRef: {fieldPath: {{ $path }}}}
{{- end }}
{{- range $name, $from := .component.secretEnv }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $from.name }}, key: {{ $from.key }}}
{{- end }}
{{- end -}}
