{{/*
The edge from a pod to the cluster's DNS, as items of a NetworkPolicy's egress; nothing where networkPolicy.dns.to is
empty. Takes the root context.
*/}}
{{- define "deerfield-common.dnsEgress" -}}
{{- with .Values.networkPolicy.dns.to -}}
- to:
    {{- toYaml . | nindent 4 }}
  ports:
    {{- range $.Values.networkPolicy.dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}
{{- end -}}
