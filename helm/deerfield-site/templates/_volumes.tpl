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
