{{/*
What the Job before install is told (docs/cluster.md): Secrets that it makes where they are missing. Certificates in mode
generated, and passwords that nobody has given. A JSON object; `secrets` is empty where there is nothing to make.
*/}}
{{- define "deerfield.wanted" -}}
{{- $secrets := list -}}
{{- if eq .Values.tls.mode "generated" -}}
{{- $hosts := include "deerfield.aggregatorHosts" . | fromJsonArray -}}
{{- $secrets = append $secrets (dict "kind" "ca" "secret" (include "deerfield.named" (list . "ca"))) -}}
{{- $secrets = append $secrets (dict "kind" "aggregator" "secret" (include "deerfield.tlsSecret" (list . "aggregator")) "hosts" $hosts) -}}
{{- $secrets = append $secrets (dict "kind" "operator" "secret" (include "deerfield.tlsSecret" (list . "operator")) "name" .Values.tls.operator) -}}
{{- if .Values.simulation.sites -}}
{{- range $index, $site := include "deerfield.simulatedSites" . | fromJsonArray -}}
{{- $secrets = append $secrets (dict "kind" "site" "secret" (include "deerfield.siteSecret" (list $ $index)) "name" $site) -}}
{{- end -}}
{{- else if .Values.trial.enabled -}}
{{- $secrets = append $secrets (dict "kind" "sites" "secret" (include "deerfield.tlsSecret" (list . "trial")) "names" (include "deerfield.trialSites" . | fromJsonArray)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tracking.enabled .Values.tracking.auth.enabled (not .Values.tracking.auth.existingSecret) -}}
{{- $secrets = append $secrets (dict "kind" "password" "secret" (include "deerfield.trackingAuth" .) "username" .Values.tracking.auth.username) -}}
{{- end -}}
{{- if and (eq .Values.database.mode "bundled") (not .Values.database.bundled.existingSecret) -}}
{{- $secrets = append $secrets (dict "kind" "password" "secret" (include "deerfield.postgresqlAuth" .) "username" "deerfield") -}}
{{- end -}}
{{- if and (eq .Values.objectStore.mode "bundled") (not .Values.objectStore.bundled.existingSecret) -}}
{{- $secrets = append $secrets (dict "kind" "password" "secret" (include "deerfield.seaweedfsAuth" .) "username" "deerfield") -}}
{{- end -}}
{{- $labels := dict "app.kubernetes.io/part-of" "deerfield" "app.kubernetes.io/instance" .Release.Name -}}
{{- dict "federation" .Values.federation "days" .Values.tls.generated.days "labels" $labels "secrets" $secrets | toJson -}}
{{- end -}}

{{/* The annotations of what the Job before install needs: it goes again when the Job is done. */}}
{{- define "deerfield.secretsHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: "-10"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
