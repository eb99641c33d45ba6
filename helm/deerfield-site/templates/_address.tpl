{{/* The host of HOST:PORT, an IPv6 address without its brackets. Takes the address. */}}
{{- define "deerfield-site.host" -}}
{{- regexReplaceAll ":[0-9]+$" . "" | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}

{{/* The port of HOST:PORT. Takes the address. */}}
{{- define "deerfield-site.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{/* HOST:PORT of the proxy; empty without one. Takes the root context. */}}
{{- define "deerfield-site.proxyAddress" -}}
{{- .Values.proxy.url | trimPrefix "http://" | trimSuffix "/" -}}
{{- end -}}

{{/*
The edge to a server, as an item of a NetworkPolicy's egress: to pods of this cluster where its name says so, else to
its addresses. Fails, naming the key, where these are not known.
Takes a dict: address (HOST:PORT), place (cidrs, podLabels), key (where cidrs stand), asked (where the address stands).
*/}}
{{- define "deerfield-site.edge" -}}
{{- $host := include "deerfield-site.host" .address -}}
{{- $inside := regexFind "^[a-z0-9-]+(\\.[a-z0-9-]+\\.svc(\\..+)?)?$" $host -}}
{{- $number := or (contains ":" $host) (regexMatch "^[0-9.]+$" $host) -}}
- to:
    {{- if .place.cidrs }}
    {{- range .place.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
    {{- else if $number }}
    - ipBlock: {cidr: {{ printf "%s/%s" $host (contains ":" $host | ternary "128" "32") | quote }}}
    {{- else if $inside }}
    - podSelector:
        {{- if .place.podLabels }}
        matchLabels:
          {{- toYaml .place.podLabels | nindent 10 }}
        {{- else }} {}
        {{- end }}
      {{- if contains "." $host }}
      namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ index (splitList "." $host) 1 }}
      {{- end }}
    {{- else }}
    {{- fail (printf "%s is empty, and %s names %q, which is outside this cluster: a NetworkPolicy cannot name hosts, so give its addresses, such as [203.0.113.7/32], or write NAME.NAMESPACE.svc:PORT for a Service of this cluster" .key .asked $host) }}
    {{- end }}
  ports:
    - {port: {{ include "deerfield-site.port" .address }}, protocol: TCP}
{{- end -}}

{{/* The edge to the aggregator, or to the proxy on the way there. Takes the root context. */}}
{{- define "deerfield-site.aggregatorEdge" -}}
{{- with .Values -}}
{{- if .proxy.url -}}
{{- include "deerfield-site.edge" (dict "address" (include "deerfield-site.proxyAddress" $) "place" .proxy "key" "proxy.cidrs" "asked" "proxy.url") -}}
{{- else -}}
{{- $labels := .aggregator.podLabels | default (dict "app.kubernetes.io/name" "deerfield" "app.kubernetes.io/component" "aggregator") -}}
{{- $place := dict "cidrs" .aggregator.cidrs "podLabels" $labels -}}
{{- include "deerfield-site.edge" (dict "address" .aggregator.address "place" $place "key" "aggregator.cidrs" "asked" "aggregator.address") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The edge to the S3 server; nothing without one. Takes the root context. */}}
{{- define "deerfield-site.s3Edge" -}}
{{- with .Values.data.s3 -}}
{{- if .endpoint -}}
{{- include "deerfield-site.edge" (dict "address" .endpoint "place" . "key" "data.s3.cidrs" "asked" "data.s3.endpoint") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The edge to the cluster's DNS. Takes the root context. */}}
{{- define "deerfield-site.dnsEdge" -}}
{{- include "deerfield-common.dnsEgress" . -}}
{{- end -}}

{{/* The edge to the API server. Takes the root context. */}}
{{- define "deerfield-site.apiServerEdge" -}}
- to:
    {{- range .Values.ondemand.apiServer.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    {{- range .Values.ondemand.apiServer.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* The edge to the consortium's MLflow. Takes the root context. */}}
{{- define "deerfield-site.trackingEdge" -}}
{{- with .Values.test.federation.tracking -}}
{{- $port := hasPrefix "https://" .url | ternary "443" "80" -}}
{{- $address := regexReplaceAll "^https?://([^/]+).*$" .url "${1}" -}}
{{- if not (regexMatch ":[0-9]+$" $address) -}}{{- $address = printf "%s:%s" $address $port -}}{{- end -}}
{{- include "deerfield-site.edge" (dict "address" $address "place" . "key" "test.federation.tracking.cidrs" "asked" "test.federation.tracking.url") -}}
{{- end -}}
{{- end -}}
