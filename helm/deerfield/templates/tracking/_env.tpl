{{/* The environment of MLflow's server (services/tracking). */}}
{{- define "deerfield.trackingEnv" -}}
{{- $values := .Values.tracking -}}
{{- $hosts := concat (include "deerfield.serviceNames" (list . "tracking") | fromJsonArray) $values.allowedHosts -}}
- name: POD_IP  # by which Prometheus calls it
  valueFrom:
    fieldRef: {fieldPath: status.podIP}
- {name: DEERFIELD_TRACKING_LISTEN, value: "{{ $values.bindAddress }}:5000"}
- name: DEERFIELD_TRACKING_DATABASE
  value: {{ include "deerfield.databaseUrl" (list . "tracking") | quote }}
- name: DEERFIELD_TRACKING_ARTIFACTS
  value: {{ include "deerfield.trackingArtifacts" . | quote }}
- name: DEERFIELD_TRACKING_ALLOWED_HOSTS
  value: "{{ join "," $hosts }},$(POD_IP)"
- {name: DEERFIELD_TRACKING_WORKERS, value: {{ $values.workers | toString | quote }}}
- {name: DEERFIELD_TRACKING_METRICS, value: {{ $values.metrics.enabled | ternary "1" "0" | quote }}}
{{- if $values.auth.enabled }}
- {name: DEERFIELD_TRACKING_USERNAME_FILE, value: /etc/deerfield/account/username}
- {name: DEERFIELD_TRACKING_PASSWORD_FILE, value: /etc/deerfield/account/password}
{{- else }}
- {name: DEERFIELD_TRACKING_OPEN, value: "1"}
{{- end }}
- {name: DEERFIELD_TERMINATION_LOG, value: /dev/termination-log}
{{- with include "deerfield.databaseEnv" (list . "tracking") }}
{{ . }}
{{- end }}
{{- with include "deerfield.s3Env" . }}
{{ . }}
{{- end }}
{{- end -}}

{{/* Where MLflow's artifacts lie. */}}
{{- define "deerfield.trackingArtifacts" -}}
{{- if eq .Values.objectStore.mode "folder" -}}/var/lib/mlflow/artifacts
{{- else -}}{{ include "deerfield.bucket" (list . .Values.objectStore.s3.trackingPrefix) }}{{- end -}}
{{- end -}}
