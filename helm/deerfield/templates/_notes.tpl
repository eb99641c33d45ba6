{{/* Commands that put keys of a Secret into files. Takes a list: root, Secret, folder, keys. */}}
{{- define "deerfield.fetch" -}}
{{- $at := . -}}
{{- range $index, $key := last . -}}
{{- if $index }}
{{ end }}   kubectl get secret {{ index $at 1 }} --namespace {{ (first $at).Release.Namespace }} -o jsonpath='{.data.{{ $key | replace "." "\\." }}}' | base64 -d > {{ index $at 2 }}/{{ $key }}
{{- end -}}
{{- end -}}
