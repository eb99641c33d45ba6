{{/* The environment of helm test: an operator, who also reads MLflow. */}}
{{- define "deerfield.trialEnv" -}}
- {name: DEERFIELD_AGGREGATOR, value: "{{ include "deerfield.named" (list . "aggregator") }}:8600"}
- {name: DEERFIELD_TLS_CERTIFICATE, value: /etc/deerfield/tls/tls.crt}
- {name: DEERFIELD_TLS_KEY, value: /etc/deerfield/tls/tls.key}
- {name: DEERFIELD_TLS_CA, value: /etc/deerfield/tls/ca.crt}
- {name: MLFLOW_TRACKING_URI, value: {{ include "deerfield.trackingUri" . | quote }}}
{{- include "deerfield.trackingUser" . }}
{{- end -}}
