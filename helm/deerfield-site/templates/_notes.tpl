{{/* What a person makes beside the release, a line each, with the keys that it has. Takes the root context. */}}
{{- define "deerfield-site.wanted" -}}
{{- $identity := include "deerfield-site.identity" . -}}
{{- with .Values.tls -}}
{{- if eq .mode "existingSecret" }}
Secret {{ .existingSecret }}: tls.crt, tls.key{{ if not .ca.existingSecret }}, ca.crt{{ end }}; its identity is {{ $identity }}
{{- end }}
{{- with .ca.existingSecret }}
Secret {{ . }}: {{ $.Values.tls.ca.key }}
{{- end }}
{{- end }}
{{- with .Values.policy }}
{{- if .existingSecret }}
Secret {{ .existingSecret }}: {{ .key }}
{{- else if .existingConfigMap }}
ConfigMap {{ .existingConfigMap }}: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.proxy }}
{{- if .existingSecret }}
Secret {{ .existingSecret }}: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.data.s3 }}
{{- if .endpoint }}
Secret {{ .existingSecret }}: {{ .accessKey }}, {{ .secretKey }}{{ with .caKey }}, {{ . }}{{ end }}
  (in the policy: source: {path: "s3://{{ .bucket }}/KEY?endpoint={{ .endpoint }}&secure={{ .secure }}&region={{ .region }}"})
{{- end }}
{{- end }}
{{- $claims := list .Values.data.existingClaim .Values.models.existingClaim .Values.state.existingClaim }}
{{- if eq .Values.mode "ondemand" }}{{ $claims = append $claims .Values.ondemand.work.existingClaim }}{{ end }}
{{- range compact $claims }}
PersistentVolumeClaim {{ . }}
{{- end }}
{{- end -}}
