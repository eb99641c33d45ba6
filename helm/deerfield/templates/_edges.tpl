{{/*
Pods of this release, and places outside it, as the peers of a NetworkPolicy's rule; nothing where there are none: a rule
without peers would let everybody in. Takes a dict: root, components, edges (each with namespaces and cidrs).
*/}}
{{- define "deerfield.peers" -}}
{{- $root := .root -}}
{{- range .components }}
- podSelector:
    matchLabels:
      {{- include "deerfield-common.selectorLabels" (dict "root" $root "component" .) | nindent 6 }}
{{- end }}
{{- range .edges }}
{{- with .namespaces }}
- namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values:
          {{- toYaml . | nindent 10 }}
{{- end }}
{{- range .cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/*
One rule of a NetworkPolicy; nothing where it has no peers.
Takes a dict: root, way (from, to), ports, components, edges, and where wanted peers (YAML of more).
*/}}
{{- define "deerfield.rule" -}}
{{- $peers := printf "%s%s" (include "deerfield.peers" .) (.peers | default "") | trim -}}
{{- if $peers -}}
- {{ .way }}:
    {{- $peers | nindent 4 }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
{{- end -}}

{{/*
The policy of one component. Takes a dict: root, component, ingress, egress (YAML of rules; may be empty), and where
wanted annotations.
*/}}
{{- define "deerfield.policy" -}}
{{- $at := merge (dict "name" (include "deerfield.named" (list .root .component))) . -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "deerfield-common.metadata" $at | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "deerfield-common.selectorLabels" $at | nindent 6 }}
  policyTypes: [Ingress, Egress]
  {{- with trim .ingress }}
  ingress:
    {{- . | nindent 4 }}
  {{- end }}
  {{- with trim .egress }}
  egress:
    {{- . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* The edges to the database and the object store, of who uses them. Takes the root context. */}}
{{- define "deerfield.storeEdges" -}}
{{- $edges := .Values.networkPolicy -}}
{{- if eq .Values.database.mode "external" }}
{{ include "deerfield.rule" (dict "root" . "way" "to" "ports" (list $edges.database.port) "edges" (list $edges.database)) }}
{{- else if eq .Values.database.mode "bundled" }}
{{ include "deerfield.rule" (dict "root" . "way" "to" "ports" (list 5432) "components" (list "postgresql")) }}
{{- end }}
{{- if eq .Values.objectStore.mode "s3" }}
{{ include "deerfield.rule" (dict "root" . "way" "to" "ports" (list $edges.objectStore.port) "edges" (list $edges.objectStore)) }}
{{- else if eq .Values.objectStore.mode "bundled" }}
{{ include "deerfield.rule" (dict "root" . "way" "to" "ports" (list 8333) "components" (list "seaweedfs")) }}
{{- end }}
{{- end -}}

{{/* The edge to MLflow, of who calls it; nothing where nothing is tracked. Takes the root context. */}}
{{- define "deerfield.trackingEdge" -}}
{{- $outside := .Values.networkPolicy.externalTracking -}}
{{- if .Values.tracking.enabled -}}
{{- include "deerfield.rule" (dict "root" . "way" "to" "ports" (list 5000) "components" (list "tracking")) -}}
{{- else if .Values.tracking.externalUri -}}
{{- include "deerfield.rule" (dict "root" . "way" "to" "ports" (list $outside.port) "edges" (list $outside)) -}}
{{- end -}}
{{- end -}}
