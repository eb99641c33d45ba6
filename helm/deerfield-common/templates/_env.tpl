{{/*
Several lists of environment variables as one, each name once: what a later list says replaces what an earlier one said,
in its place. Helm 4 applies by name and refuses a list that has a name twice.
Takes a list of lists.
*/}}
{{- define "deerfield-common.env" -}}
{{- $names := list -}}
{{- $found := dict -}}
{{- range $each := . -}}
{{- range $item := $each -}}
{{- if not (kindIs "map" $item) -}}{{- fail (printf "an environment variable is not a map: %v" $item) -}}{{- end -}}
{{- if not (hasKey $found $item.name) -}}{{- $names = append $names $item.name -}}{{- end -}}
{{- $_ := set $found $item.name $item -}}
{{- end -}}
{{- end -}}
{{- $merged := list -}}
{{- range $names -}}{{- $merged = append $merged (get $found .) -}}{{- end -}}
{{- toYaml $merged -}}
{{- end -}}
