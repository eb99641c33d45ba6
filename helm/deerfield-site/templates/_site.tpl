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

{{/*
A volume of a Secret or ConfigMap that the pod starts without, so that the program can say what is missing; it is there
within a minute of its making. Takes a dict: name, kind (secret, configMap), from (its name), and where wanted items.
*/}}
{{- define "deerfield-site.optional" -}}
- name: {{ .name }}
  {{ .kind }}:
    {{ eq .kind "secret" | ternary "secretName" "name" }}: {{ .from }}
    optional: true
    {{- if eq .kind "secret" }}
    defaultMode: 0400
    {{- end }}
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}

{{/* The certificate's volume. Takes a dict: root, secret (its name), ca (existingSecret, key; empty: all from one). */}}
{{- define "deerfield-site.tlsVolume" -}}
{{- if (.ca | default dict).existingSecret -}}
- name: tls
  projected:
    defaultMode: 0400
    sources:
      - secret:
          name: {{ .secret }}
          optional: true
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      - secret:
          name: {{ .ca.existingSecret }}
          optional: true
          items: [{key: {{ .ca.key }}, path: ca.crt}]
{{- else -}}
{{- include "deerfield-site.optional" (dict "name" "tls" "kind" "secret" "from" .secret) -}}
{{- end -}}
{{- end -}}

{{/* The volumes of a container that speaks for the site: certificate and policy. Takes the root context. */}}
{{- define "deerfield-site.siteVolumes" -}}
{{- include "deerfield-site.tlsVolume" (dict "secret" (include "deerfield-site.tlsSecret" .) "ca" .Values.tls.ca) }}
{{- with .Values.policy }}
{{- $items := list (dict "key" .key "path" "policy.yaml") }}
{{- if .existingSecret }}
{{ include "deerfield-site.optional" (dict "name" "policy" "kind" "secret" "from" .existingSecret "items" $items) }}
{{- else if .existingConfigMap }}
{{ include "deerfield-site.optional" (dict "name" "policy" "kind" "configMap" "from" .existingConfigMap "items" $items) }}
{{- else }}
- name: policy
  configMap:
    name: {{ include "deerfield-site.named" (list $ "policy") }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. Takes nothing. */}}
{{- define "deerfield-site.siteMounts" -}}
- {name: tls, mountPath: /etc/deerfield/tls, readOnly: true}
- {name: policy, mountPath: /etc/deerfield/policy, readOnly: true}
{{- end -}}

{{/* The volume of ledgers, key and stored updates. Takes the root context. */}}
{{- define "deerfield-site.stateVolume" -}}
- name: state
  persistentVolumeClaim:
    claimName: {{ .Values.state.existingClaim | default (include "deerfield-site.named" (list . "state")) }}
{{- end -}}

{{/* The volumes of a container that reads data and models; maybe none. Takes the root context. */}}
{{- define "deerfield-site.dataVolumes" -}}
{{- with .Values.data.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- with .Values.models.existingClaim }}
- name: models
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- if .Values.data.s3.endpoint }}
{{ include "deerfield-site.optional" (dict "name" "s3" "kind" "secret" "from" .Values.data.s3.existingSecret) }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. Takes the root context. */}}
{{- define "deerfield-site.dataMounts" -}}
{{- if .Values.data.existingClaim }}
- {name: data, mountPath: /data, readOnly: true}
{{- end }}
{{- if .Values.models.existingClaim }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- if .Values.data.s3.endpoint }}
- {name: s3, mountPath: /etc/deerfield/s3, readOnly: true}
{{- end }}
{{- end -}}

{{/* /tmp, and for a container that trains /dev/shm and the volumes of values. Takes the root context. */}}
{{- define "deerfield-site.trainerVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.trainer.tmp.size }}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.trainer.shm.size }}}
{{- with .Values.trainer.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where they are mounted. Takes the root context. */}}
{{- define "deerfield-site.trainerMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
{{- with .Values.trainer.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
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
