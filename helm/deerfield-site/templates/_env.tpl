{{/* Variables of every container: how it logs, where its last sentence goes. Takes the root context. */}}
{{- define "deerfield-site.commonEnv" -}}
- {name: DEERFIELD_LOG, value: {{ .Values.log.format }}}
- {name: DEERFIELD_TERMINATION_LOG, value: /dev/termination-log}
{{- end -}}

{{/* The proxy's URL as one variable; nothing without a proxy. Takes a list: root, the variable's name. */}}
{{- define "deerfield-site.proxyVariable" -}}
{{- $name := index . 1 -}}
{{- with (index . 0).Values.proxy -}}
{{- if .existingSecret -}}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .key }}}
{{- else if .url -}}
- {name: {{ $name }}, value: {{ .url | quote }}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables of a container that reaches the aggregator by a certificate in /etc/deerfield/tls. Takes the root context. */}}
{{- define "deerfield-site.aggregatorEnv" -}}
- {name: DEERFIELD_AGGREGATOR, value: {{ .Values.aggregator.address | quote }}}
- {name: DEERFIELD_TLS_CERTIFICATE, value: /etc/deerfield/tls/tls.crt}
- {name: DEERFIELD_TLS_KEY, value: /etc/deerfield/tls/tls.key}
- {name: DEERFIELD_TLS_CA, value: /etc/deerfield/tls/ca.crt}
{{- end -}}

{{/* Variables of a container that speaks for the site. Takes the root context. */}}
{{- define "deerfield-site.siteEnv" -}}
- {name: DEERFIELD_SITE, value: {{ .Values.site.name | quote }}}
- {name: DEERFIELD_POLICY, value: /etc/deerfield/policy/policy.yaml}
{{ include "deerfield-site.aggregatorEnv" . }}
{{ include "deerfield-site.proxyVariable" (list . "DEERFIELD_PROXY") }}
{{- end -}}

{{/* Variables of a container that keeps the ledger. Takes the root context. */}}
{{- define "deerfield-site.stateEnv" -}}
- {name: DEERFIELD_STATE, value: /var/lib/deerfield}
- {name: DEERFIELD_READY, value: /tmp/ready}
{{- if .Values.metrics.enabled }}
- {name: DEERFIELD_SITE_METRICS, value: "0.0.0.0:8603"}
{{- end }}
{{- if .Values.egressProof.enabled }}
- {name: DEERFIELD_EGRESS_PROOF, value: {{ join "," .Values.egressProof.targets | quote }}}
{{- end }}
{{- end -}}

{{/* Variables of a container that reads data and models: files alone, no model hub. Takes the root context. */}}
{{- define "deerfield-site.dataEnv" -}}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- with .Values.data.s3 }}
{{- if .endpoint }}
- {name: AWS_ACCESS_KEY_ID_FILE, value: /etc/deerfield/s3/{{ .accessKey }}}
- {name: AWS_SECRET_ACCESS_KEY_FILE, value: /etc/deerfield/s3/{{ .secretKey }}}
{{- if .caKey }}
- {name: SSL_CERT_FILE, value: /etc/deerfield/s3/{{ .caKey }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
Several of the above and extra variables as one list, each name once. Takes a dict: root, parts (names of the
templates), extra.
*/}}
{{- define "deerfield-site.env" -}}
{{- $root := .root -}}
{{- $lists := list -}}
{{- range .parts -}}
{{- $lists = append $lists (include (printf "deerfield-site.%sEnv" .) $root | fromYamlArray) -}}
{{- end -}}
{{- include "deerfield-common.env" (append $lists (.extra | default list)) -}}
{{- end -}}

{{/* Variables of the trial: MLflow, and the proxy, which an operator's commands know by this name. Takes the root context. */}}
{{- define "deerfield-site.trialEnv" -}}
{{ include "deerfield-site.proxyVariable" (list . "grpc_proxy") }}
{{- with .Values.test.federation.tracking }}
- {name: MLFLOW_TRACKING_URI, value: {{ .url | quote }}}
{{- with .existingSecret }}
- name: MLFLOW_TRACKING_USERNAME
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: username}
- name: MLFLOW_TRACKING_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ . }}, key: password}
{{- end }}
{{- end }}
{{- end -}}
