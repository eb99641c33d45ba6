{{/* Where KFP is and how it is asked (docs/schedules.md). */}}
{{- define "deerfield.registrarEnv" -}}
- {name: KF_PIPELINES_ENDPOINT, value: {{ .Values.kfp.endpoint | quote }}}
{{- with .Values.kfp.namespace }}
- {name: DEERFIELD_KFP_NAMESPACE, value: {{ . | quote }}}
- {name: KF_PIPELINES_SA_TOKEN_PATH, value: /var/run/secrets/kubeflow/pipelines/token}
{{- end }}
{{- if .Values.kfp.caConfigMap }}
- {name: DEERFIELD_KFP_CA, value: /etc/deerfield/kfp-ca/ca.crt}
{{- end }}
{{- end -}}

{{/* The compile options of this release: its images, and its Secrets by their names; kfp.compileOptions wins. */}}
{{- define "deerfield.compileOptions" -}}
{{- $image := include "deerfield-common.image" (dict "root" . "image" .Values.jobs.image) -}}
{{- $site := include "deerfield-common.image" (dict "root" . "image" .Values.simulation.image) -}}
{{- $own := dict "image" $image "pull_policy" (include "deerfield-common.pullPolicy" (dict "root" . "image" .Values.jobs.image)) "sites" (dict "image" $site) -}}
{{- $secrets := list -}}
{{- range .Values.image.pullSecrets -}}{{- $secrets = append $secrets .name -}}{{- end -}}
{{- if $secrets -}}{{- $_ := set $own "pull_secrets" $secrets -}}{{- end -}}
{{- if ne .Values.tls.mode "existingSecret" -}}{{- $_ := set $own "tls_secret" (include "deerfield.tlsSecret" (list . "operator")) -}}{{- end -}}
{{- if and .Values.tracking.enabled .Values.tracking.auth.enabled -}}{{- $_ := set $own "tracking_secret" (include "deerfield.trackingAuth" .) -}}{{- end -}}
{{- mergeOverwrite $own (deepCopy .Values.kfp.compileOptions) | toYaml -}}
{{- end -}}

{{/*
The schedules, with the parameters that the chart knows, unless a schedule has its own: where the aggregator and MLflow are,
by names that KFP's tasks reach from their own namespace.
*/}}
{{- define "deerfield.schedules" -}}
{{- $known := dict "aggregator" (printf "%s:8600" (include "deerfield.host" (list . "aggregator"))) -}}
{{- if .Values.tracking.enabled -}}
{{- $_ := set $known "tracking" (printf "http://%s:5000" (include "deerfield.host" (list . "tracking"))) -}}
{{- else if .Values.tracking.externalUri -}}
{{- $_ := set $known "tracking" .Values.tracking.externalUri -}}
{{- end -}}
{{- $schedules := list -}}
{{- range .Values.kfp.schedules -}}
{{- $parameters := merge (deepCopy (.parameters | default dict)) $known -}}
{{- $schedules = append $schedules (merge (dict "parameters" $parameters) .) -}}
{{- end -}}
{{- dict "schedules" $schedules | toYaml -}}
{{- end -}}
