{{/*
The reference of an image: REGISTRY/REPOSITORY:TAG, and @DIGEST where there is one, which then decides.
The registry is the image's own, else the one of all (image.registry), else `registry`, where the image comes from
when it is not ours. The tag is the image's own, else the one of all (image.tag), else the chart's appVersion.
Takes a dict: root, image (registry, repository, tag, digest), and for images of others registry.
*/}}
{{- define "deerfield-common.image" -}}
{{- $all := .root.Values.image | default dict -}}
{{- $registry := .image.registry | default $all.registry | default .registry -}}
{{- $tag := .image.tag | default $all.tag | default .root.Chart.AppVersion | toString -}}
{{- if $registry }}{{ trimSuffix "/" $registry }}/{{ end }}{{ .image.repository }}:{{ $tag }}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/*
When an image is pulled: the image's own pullPolicy, else the one of all (image.pullPolicy).
Takes a dict: root, image.
*/}}
{{- define "deerfield-common.pullPolicy" -}}
{{- .image.pullPolicy | default .root.Values.image.pullPolicy | default "IfNotPresent" -}}
{{- end -}}

{{/* Fails for an image whose tag is latest, naming the key. Takes a dict: by the image's key, the image. */}}
{{- define "deerfield-common.checkTags" -}}
{{- range $key, $image := . -}}
{{- if eq $image.tag "latest" -}}
{{- fail (printf "%s.tag is latest, which is another image each day: name a version" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
