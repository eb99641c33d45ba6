{{/* The environment of a simulated site, whose name is its pod's. */}}
{{- define "deerfield.siteEnv" -}}
- name: DEERFIELD_SITE
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- {name: DEERFIELD_AGGREGATOR, value: "{{ include "deerfield.named" (list . "aggregator") }}:8600"}
- {name: DEERFIELD_POLICY, value: {{ empty .Values.simulation.policy | ternary "/opt/deerfield/share/trial" "/etc/deerfield/policy" }}/policy.yaml}
- {name: DEERFIELD_STATE, value: /var/lib/deerfield}
- {name: DEERFIELD_TLS_CERTIFICATE, value: /etc/deerfield/tls/$(DEERFIELD_SITE).crt}
- {name: DEERFIELD_TLS_KEY, value: /etc/deerfield/tls/$(DEERFIELD_SITE).key}
- {name: DEERFIELD_TLS_CA, value: /etc/deerfield/tls/ca.crt}
- {name: DEERFIELD_READY, value: /tmp/ready}
- {name: DEERFIELD_TERMINATION_LOG, value: /dev/termination-log}
{{- if .Values.simulation.metrics.enabled }}
- {name: DEERFIELD_SITE_METRICS, value: "{{ .Values.aggregator.bindAddress }}:8603"}
{{- end }}
{{- end -}}
