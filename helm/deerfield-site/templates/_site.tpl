{{/* The name of one of the release's objects, NAME-SUFFIX. Takes a list: root, suffix. */}}
{{- define "deerfield-site.named" -}}
{{- include "deerfield-common.named" (dict "root" (index . 0) "suffix" (index . 1)) -}}
{{- end -}}

{{/* The component that has the ledger and talks to the aggregator, by the mode. Takes the root context. */}}
{{- define "deerfield-site.main" -}}
{{- eq .Values.mode "resident" | ternary "site" "agent" -}}
{{- end -}}

{{/* Who the site's certificate says it is. Takes the root context. */}}
{{- define "deerfield-site.identity" -}}
{{- printf "deerfield://%s/site/%s" .Values.federation .Values.site.name | replace " " "%20" -}}
{{- end -}}

{{/* The policy of policy.inline, whole: with the federation, and the trial where it is wanted. Takes the root context. */}}
{{- define "deerfield-site.policy" -}}
{{- $policy := merge (dict "federation" .Values.federation) (deepCopy .Values.policy.inline) -}}
{{- if .Values.trial.enabled -}}
{{- $trial := .Files.Get "files/trial-policy.yaml" | fromYaml -}}
{{- range $key := list "populations" "models" -}}
{{- $_ := set $policy $key (merge (deepCopy (get $trial $key)) (get $policy $key | default dict)) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "populations" "models" -}}{{- $_ := set $policy $key (get $policy $key | default dict) -}}{{- end -}}
{{- if and .Values.trainer.gpu.count (not $policy.device) -}}{{- $_ := set $policy "device" "cuda" -}}{{- end -}}
{{- toYaml $policy -}}
{{- end -}}

{{/* The ServiceAccount of pods that may nothing: one that no role is bound to. Takes the root context. */}}
{{- define "deerfield-site.quietAccount" -}}
{{- if eq .Values.mode "ondemand" -}}
{{- include "deerfield-site.named" (list . "task") -}}
{{- else -}}
{{- include "deerfield-common.serviceAccountName" (dict "workload" .Values "name" (include "deerfield-site.named" (list . "site"))) -}}
{{- end -}}
{{- end -}}

{{/* Annotations of a pod that reads the policy: another inline policy makes another pod. Takes the root context. */}}
{{- define "deerfield-site.policySum" -}}
{{- if not (or .Values.policy.existingConfigMap .Values.policy.existingSecret) -}}
deerfield/policy: {{ include "deerfield-site.policy" . | sha256sum }}
{{- end -}}
{{- end -}}

{{/* The Secret of the site's certificate. Takes the root context. */}}
{{- define "deerfield-site.tlsSecret" -}}
{{- if eq .Values.tls.mode "certManager" -}}
{{- include "deerfield-site.named" (list . "tls") -}}
{{- else -}}
{{- .Values.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* A workload of values, with what is set for all pods. Takes a list: root, workload. */}}
{{- define "deerfield-site.workload" -}}
{{- $values := (index . 0).Values -}}
{{- $all := dict "hostAliases" $values.hostAliases "dnsPolicy" $values.dnsPolicy "dnsConfig" $values.dnsConfig -}}
{{- $_ := set $all "terminationGracePeriodSeconds" $values.terminationGracePeriodSeconds -}}
{{- merge (deepCopy (index . 1)) $all | toYaml -}}
{{- end -}}

{{/* What the device plugin calls a GPU, or the part of one. Takes the root context. */}}
{{- define "deerfield-site.gpuResource" -}}
{{- with .Values.trainer.gpu -}}
{{- .mig | empty | ternary .resource (printf "%s/mig-%s" (index (splitList "/" .resource) 0) .mig) -}}
{{- end -}}
{{- end -}}

{{/* The workload that trains: trainer, with its GPUs among the limits. Takes the root context. */}}
{{- define "deerfield-site.trainer" -}}
{{- $workload := include "deerfield-site.workload" (list . .Values.trainer) | fromYaml -}}
{{- with .Values.trainer.gpu.count -}}
{{- $gpus := dict (include "deerfield-site.gpuResource" $) (int .) -}}
{{- $_ := set $workload.resources "limits" (merge $gpus (get $workload.resources "limits" | default dict)) -}}
{{- end -}}
{{- toYaml $workload -}}
{{- end -}}
