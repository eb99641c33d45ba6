{{/*
The agent's workload. Where it shares a volume that is on one node with the Jobs, it must be where they can be: what it
does not say of its node is then the trainer's. Takes the root context.
*/}}
{{- define "deerfield-site.agent" -}}
{{- $workload := include "deerfield-site.workload" (list . .Values.ondemand.agent) | fromYaml -}}
{{- if eq .Values.ondemand.work.accessMode "ReadWriteOnce" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" -}}
{{- if not (get $workload $key) -}}{{- $_ := set $workload $key (get $.Values.trainer $key) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $workload -}}
{{- end -}}

{{/* Variables of the agent alone. Takes the root context. */}}
{{- define "deerfield-site.agentEnv" -}}
- {name: DEERFIELD_WORK, value: /work}
- {name: DEERFIELD_JOB, value: /etc/deerfield/job/job.yaml}
- {name: DEERFIELD_JOB_START_S, value: {{ int .Values.ondemand.startSeconds | quote }}}
{{- end -}}

{{/* The volume on which agent and Jobs hand files to each other. Takes the root context. */}}
{{- define "deerfield-site.workVolume" -}}
- name: work
  persistentVolumeClaim:
    claimName: {{ .Values.ondemand.work.existingClaim | default (include "deerfield-site.named" (list . "work")) }}
{{- end -}}

{{/* The Job of a task, whose name, labels of the run and last arguments the agent adds. Takes the root context. */}}
{{- define "deerfield-site.job" -}}
{{- $name := include "deerfield-site.named" (list . "task") -}}
{{- $workload := include "deerfield-site.trainer" . | fromYaml -}}
{{- if eq .Values.ondemand.work.accessMode "ReadWriteOnce" -}}
{{- $beside := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "deerfield-common.selectorLabels" (dict "root" . "component" "agent") | fromYaml)) -}}
{{- $affinity := deepCopy $workload.affinity -}}
{{- $pods := get $affinity "podAffinity" | default dict -}}
{{- $rule := "requiredDuringSchedulingIgnoredDuringExecution" -}}
{{- $_ := set $pods $rule (append (get $pods $rule | default list) $beside) -}}
{{- $_ := set $affinity "podAffinity" $pods -}}
{{- $_ := set $workload "affinity" $affinity -}}
{{- end -}}
{{- $pod := dict "root" . "component" "task" "name" $name "workload" $workload "serviceAccount" $name -}}
{{- $labels := include "deerfield-common.labels" $pod | fromYaml -}}
{{- $_ := unset $labels "helm.sh/chart" -}}{{/* a chart that changes nothing of the Job does not restart the agent */}}
{{- with .Values.ondemand.queueName -}}{{- $_ := set $labels "kueue.x-k8s.io/queue-name" . -}}{{- end -}}
{{- with .Values.ondemand.queuePriorityClass -}}{{- $_ := set $labels "kueue.x-k8s.io/priority-class" . -}}{{- end -}}
apiVersion: batch/v1
kind: Job
metadata:
  namespace: {{ .Release.Namespace }}
  labels:
    {{- toYaml $labels | nindent 4 }}
spec:
  activeDeadlineSeconds: {{ int .Values.ondemand.deadlineSeconds }}
  ttlSecondsAfterFinished: {{ int .Values.ondemand.ttlSeconds }}
  template:
    metadata:
      {{- include "deerfield-common.podMetadata" $pod | nindent 6 }}
    spec:
      {{- include "deerfield-common.podSpec" $pod | nindent 6 }}
      restartPolicy: Never
      containers:
        - name: task
          command: [python, -m, services.client]
          {{- include "deerfield-common.container" (merge (dict "image" .Values.image.client) $pod) | nindent 10 }}
          env:
            {{- include "deerfield-site.env" (dict "root" . "parts" (list "common" "data") "extra" .Values.trainer.extraEnv) | nindent 12 }}
          volumeMounts:
            - {name: work, mountPath: /work}
            {{- include "deerfield-site.dataMounts" . | trim | nindent 12 }}
            {{- include "deerfield-site.trainerMounts" . | nindent 12 }}
      volumes:
        {{- include "deerfield-site.workVolume" . | nindent 8 }}
        {{- include "deerfield-site.dataVolumes" . | trim | nindent 8 }}
        {{- include "deerfield-site.trainerVolumes" . | nindent 8 }}
{{- end -}}
