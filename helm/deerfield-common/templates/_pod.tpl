{{/*
Who a pod runs as. runAsUser, runAsGroup and fsGroup are values (podSecurityContext), which a platform that gives users
itself sets to null; the rest is what the Pod Security Standard "restricted" asks for, and no value takes it away.
Takes a dict: root, and where another user is wanted podSecurityContext.
*/}}
{{- define "deerfield-common.podSecurityContext" -}}
{{- $who := .podSecurityContext | default .root.Values.podSecurityContext | default dict -}}
{{- $all := merge (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) $who -}}
{{- toYaml $all -}}
{{- end -}}

{{/* What a container may: nothing but to run. Takes nothing. */}}
{{- define "deerfield-common.securityContext" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/*
The labels and annotations of a pod template; podLabels and podAnnotations are the workload's.
Takes a dict: root, component, workload, and where wanted annotations.
*/}}
{{- define "deerfield-common.podMetadata" -}}
{{- $labels := include "deerfield-common.labels" . | fromYaml -}}
{{- $_ := unset $labels "helm.sh/chart" -}}{{- /* a chart that changes nothing of a pod does not restart it */ -}}
labels:
  {{- merge $labels (.workload.podLabels | default dict) | toYaml | nindent 2 }}
{{- $annotations := merge (deepCopy (.annotations | default dict)) (.workload.podAnnotations | default dict) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
All of a pod's spec but its containers and volumes. A ServiceAccount's token is in the pod only where `token` is true.
A topologySpreadConstraint without labelSelector gets the component's.
Takes a dict: root, component, serviceAccount (its name), workload (nodeSelector, tolerations, affinity,
topologySpreadConstraints, priorityClassName, runtimeClassName, schedulerName, hostAliases, dnsPolicy, dnsConfig,
terminationGracePeriodSeconds), and where wanted token (true), podSecurityContext.
*/}}
{{- define "deerfield-common.podSpec" -}}
{{- $at := . -}}
serviceAccountName: {{ .serviceAccount }}
automountServiceAccountToken: {{ .token | default false }}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "deerfield-common.podSecurityContext" . | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "hostAliases" "dnsConfig" }}
{{- with get $at.workload $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $key := list "priorityClassName" "runtimeClassName" "schedulerName" "dnsPolicy" }}
{{- with get $at.workload $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- with .workload.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $selector := dict "matchLabels" (include "deerfield-common.selectorLabels" $at | fromYaml) }}
  - {{- merge (deepCopy .) (dict "labelSelector" $selector) | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with .workload.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- end -}}

{{/*
What every container has, beside its name, command, env, probes and mounts: image, what it may, resources, and the
termination message, which the program writes itself and else is the end of its log.
Takes a dict: root, image, workload (resources), and for images of others registry.
*/}}
{{- define "deerfield-common.container" -}}
image: {{ include "deerfield-common.image" . }}
imagePullPolicy: {{ include "deerfield-common.pullPolicy" . }}
securityContext:
  {{- include "deerfield-common.securityContext" . | nindent 2 }}
{{- with .workload.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: FallbackToLogsOnError
{{- end -}}

{{/*
The name of a component's ServiceAccount: serviceAccount.name of the workload, else NAME.
Takes a dict: root, workload, name.
*/}}
{{- define "deerfield-common.serviceAccountName" -}}
{{- (.workload.serviceAccount | default dict).name | default .name -}}
{{- end -}}

{{/*
A component's ServiceAccount, without a token of its own in pods; nothing where serviceAccount.create is false.
Takes a dict: root, component, workload, name, and where wanted annotations.
*/}}
{{- define "deerfield-common.serviceAccount" -}}
{{- $account := .workload.serviceAccount | default dict -}}
{{- if (hasKey $account "create" | ternary $account.create true) -}}
{{- $annotations := merge (deepCopy (.annotations | default dict)) ($account.annotations | default dict) -}}
{{- $name := include "deerfield-common.serviceAccountName" . -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "deerfield-common.metadata" (dict "root" .root "component" .component "name" $name "annotations" $annotations) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}
