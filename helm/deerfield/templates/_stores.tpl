{{/* The database's URL of a component, without a password. Takes a list: root, component (aggregator, tracking). */}}
{{- define "deerfield.databaseUrl" -}}
{{- $root := first . -}}
{{- $component := last . -}}
{{- $mode := $root.Values.database.mode -}}
{{- if eq $mode "external" -}}
{{- get $root.Values.database.external (printf "%sUrl" $component) -}}
{{- else if eq $mode "bundled" -}}
postgresql://deerfield@{{ include "deerfield.named" (list $root "postgresql") }}:5432/{{ $component }}
{{- else -}}
sqlite:////var/lib/{{ eq $component "aggregator" | ternary "deerfield/aggregator" "mlflow/mlflow" }}.db
{{- end -}}
{{- end -}}

{{/* PGPASSWORD of a component; nothing with SQLite. Takes a list: root, component. */}}
{{- define "deerfield.databaseEnv" -}}
{{- $root := first . -}}
{{- $external := $root.Values.database.external -}}
{{- if eq $root.Values.database.mode "external" -}}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef: {name: {{ $external.existingSecret }}, key: {{ get $external (printf "%sPasswordKey" (last .)) }}}
{{- else if eq $root.Values.database.mode "bundled" -}}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "deerfield.postgresqlAuth" $root }}, key: password}
{{- end -}}
{{- end -}}

{{/* The S3 server, HOST:PORT; empty is AWS. */}}
{{- define "deerfield.s3Endpoint" -}}
{{- if eq .Values.objectStore.mode "bundled" -}}{{ include "deerfield.named" (list . "seaweedfs") }}:8333
{{- else -}}{{ .Values.objectStore.s3.endpoint }}{{- end -}}
{{- end -}}

{{/* "true" where the S3 server is asked by https. */}}
{{- define "deerfield.s3Secure" -}}
{{- if and (eq .Values.objectStore.mode "s3") .Values.objectStore.s3.secure -}}true{{- else -}}false{{- end -}}
{{- end -}}

{{/* Part of the bucket (docs/stores.md). Takes a list: root, prefix. */}}
{{- define "deerfield.bucket" -}}
{{- $root := first . -}}
{{- $s3 := $root.Values.objectStore.s3 -}}
s3://{{ $s3.bucket }}/{{ last . }}?secure={{ include "deerfield.s3Secure" $root }}&region={{ $s3.region }}
{{- with include "deerfield.s3Endpoint" $root }}&endpoint={{ . }}{{ end -}}
{{- end -}}

{{/* Where the credentials of the S3 server are mounted; nothing with folders. */}}
{{- define "deerfield.s3Env" -}}
{{- if ne .Values.objectStore.mode "folder" -}}
- {name: AWS_ACCESS_KEY_ID_FILE, value: /etc/deerfield/s3/access-key}
- {name: AWS_SECRET_ACCESS_KEY_FILE, value: /etc/deerfield/s3/secret-key}
{{- if eq .Values.objectStore.mode "s3" }}
{{- if .Values.objectStore.s3.sessionTokenKey }}
- {name: AWS_SESSION_TOKEN_FILE, value: /etc/deerfield/s3/session-token}
{{- end }}
{{- if .Values.objectStore.s3.caConfigMap }}
- {name: SSL_CERT_FILE, value: /etc/deerfield/s3-ca/ca.crt}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* The volumes of both stores' credentials and CAs, and where they are mounted. */}}
{{- define "deerfield.storeVolumes" -}}
{{- $s3 := .Values.objectStore.s3 -}}
{{- if eq .Values.objectStore.mode "s3" }}
- name: s3
  secret:
    secretName: {{ $s3.existingSecret }}
    optional: true
    defaultMode: 0400
    items:
      - {key: {{ $s3.accessKeyKey }}, path: access-key}
      - {key: {{ $s3.secretKeyKey }}, path: secret-key}
      {{- with $s3.sessionTokenKey }}
      - {key: {{ . }}, path: session-token}
      {{- end }}
{{- with $s3.caConfigMap }}
- name: s3-ca
  configMap: {name: {{ . }}}
{{- end }}
{{- else if eq .Values.objectStore.mode "bundled" }}
- name: s3
  secret:
    secretName: {{ include "deerfield.seaweedfsAuth" . }}
    optional: true
    defaultMode: 0400
    items:
      - {key: username, path: access-key}
      - {key: password, path: secret-key}
{{- end }}
{{- if and (eq .Values.database.mode "external") .Values.database.external.caConfigMap }}
- name: database-ca
  configMap: {name: {{ .Values.database.external.caConfigMap }}}
{{- end }}
{{- end -}}

{{- define "deerfield.storeMounts" -}}
{{- if ne .Values.objectStore.mode "folder" }}
- {name: s3, mountPath: /etc/deerfield/s3, readOnly: true}
{{- if and (eq .Values.objectStore.mode "s3") .Values.objectStore.s3.caConfigMap }}
- {name: s3-ca, mountPath: /etc/deerfield/s3-ca, readOnly: true}
{{- end }}
{{- end }}
{{- if and (eq .Values.database.mode "external") .Values.database.external.caConfigMap }}
- {name: database-ca, mountPath: /etc/deerfield/database-ca, readOnly: true}
{{- end }}
{{- end -}}

{{/*
A claim of a StatefulSet; nothing where a claim is there already. It has no label that a new chart would change: the API
refuses another volumeClaimTemplate. Takes a list: root, component, persistence.
*/}}
{{- define "deerfield.claimTemplate" -}}
{{- $persistence := last . -}}
{{- if not $persistence.existingClaim -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: state
      labels:
        {{- include "deerfield-common.selectorLabels" (dict "root" (first .) "component" (index . 1)) | nindent 8 }}
    spec:
      accessModes: [{{ $persistence.accessMode }}]
      {{- with $persistence.storageClass }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ $persistence.size }}
{{- end -}}
{{- end -}}

{{/* The volume `state` of a claim that is there already. Takes the persistence values. */}}
{{- define "deerfield.existingClaim" -}}
{{- with .existingClaim -}}
- name: state
  persistentVolumeClaim: {claimName: {{ . }}}
{{- end -}}
{{- end -}}
