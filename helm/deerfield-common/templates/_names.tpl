{{/*
The name that all objects of a release begin with: fullnameOverride, else the release's name. A Service's name has no dot
and begins with a letter, which a release's need not.
Takes the root context.
*/}}
{{- define "deerfield-common.fullname" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name | replace "." "-" | trimSuffix "-" -}}
{{- if regexMatch "^[0-9]" $name }}r{{ end }}{{ $name -}}
{{- end -}}

{{/*
The name of one object, FULLNAME-SUFFIX. At most 52 characters: a StatefulSet's name and the hash of its revision
become one label, which may have 63. A longer one is cut and keeps 8 characters of a hash, so that two releases whose
names begin alike stay apart.
Takes a dict: root, suffix.
*/}}
{{- define "deerfield-common.named" -}}
{{- $full := include "deerfield-common.fullname" .root -}}
{{- $room := sub 51 (len .suffix) | int -}}
{{- if gt (len $full) $room -}}
{{- $full = printf "%s-%s" ($full | trunc (sub $room 9 | int) | trimSuffix "-") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{- printf "%s-%s" $full .suffix -}}
{{- end -}}

{{/*
The labels that a Service or a workload selects a component's pods by. They never change between releases.
Takes a dict: root, component.
*/}}
{{- define "deerfield-common.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/*
The recommended labels of every object, with those of commonLabels.
Takes a dict: root, component.
*/}}
{{- define "deerfield-common.labels" -}}
{{- $own := include "deerfield-common.selectorLabels" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/part-of" "deerfield" -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- merge $own (.root.Values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/*
The metadata of an object: its name, namespace, labels, and annotations where there are any.
Takes a dict: root, component, name, and where wanted annotations.
*/}}
{{- define "deerfield-common.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "deerfield-common.labels" . | nindent 2 }}
{{- $annotations := merge (deepCopy (.annotations | default dict)) (.root.Values.commonAnnotations | default dict) }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
