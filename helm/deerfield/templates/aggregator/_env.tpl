{{/* The aggregator's environment: a variable for each flag that is set. */}}
{{- define "deerfield.aggregatorEnv" -}}
{{- $bind := .Values.aggregator.bindAddress -}}
- {name: DEERFIELD_LISTEN, value: "{{ $bind }}:8600"}
- {name: DEERFIELD_HEALTH, value: "{{ $bind }}:8601"}
{{- if .Values.aggregator.metrics.enabled }}
- {name: DEERFIELD_METRICS, value: "{{ $bind }}:8602"}
{{- end }}
- name: DEERFIELD_DATABASE
  value: {{ include "deerfield.databaseUrl" (list . "aggregator") | quote }}
- name: DEERFIELD_BLOBS
  value: {{ include "deerfield.blobs" . | quote }}
- {name: DEERFIELD_KEY, value: /var/lib/deerfield/aggregator.key}
- {name: DEERFIELD_TLS_CERTIFICATE, value: /etc/deerfield/tls/tls.crt}
- {name: DEERFIELD_TLS_KEY, value: /etc/deerfield/tls/tls.key}
- {name: DEERFIELD_TLS_CA, value: /etc/deerfield/tls/ca.crt}
- {name: DEERFIELD_REVOKED, value: /etc/deerfield/revoked/revoked.json}
- {name: DEERFIELD_TERMINATION_LOG, value: /dev/termination-log}
{{- if .Values.aggregator.gateRules }}
- {name: DEERFIELD_GATE_RULES, value: /etc/deerfield/gate/gate.yaml}
{{- end }}
{{- with include "deerfield.trackingUri" . }}
- {name: DEERFIELD_TRACKING, value: {{ . | quote }}}
{{- end }}
{{- include "deerfield.trackingUser" . }}
{{- with include "deerfield.databaseEnv" (list . "aggregator") }}
{{ . }}
{{- end }}
{{- with include "deerfield.s3Env" . }}
{{ . }}
{{- end }}
{{- range $name, $value := .Values.aggregator.settings }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "") (eq $name "migrate")) }}
- name: DEERFIELD_{{ snakecase $name | upper }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- if .Values.aggregator.settings.migrate }}
- {name: DEERFIELD_MIGRATE, value: "1"}
{{- end }}
{{- end -}}

{{/* Where the aggregator's tensors lie. */}}
{{- define "deerfield.blobs" -}}
{{- if eq .Values.objectStore.mode "folder" -}}/var/lib/deerfield/blobs
{{- else -}}{{ include "deerfield.bucket" (list . .Values.objectStore.s3.aggregatorPrefix) }}{{- end -}}
{{- end -}}

{{/* User and password of MLflow, for who calls it; nothing where it asks for none. */}}
{{- define "deerfield.trackingUser" -}}
{{- if and .Values.tracking.auth.enabled (or .Values.tracking.enabled .Values.tracking.auth.existingSecret) }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ include "deerfield.trackingAuth" . }}, key: username}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "deerfield.trackingAuth" . }}, key: password}
{{- end }}
{{- end -}}
