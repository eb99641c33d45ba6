{{/* RELEASE-SUFFIX. Takes a list: the root context, the suffix. */}}
{{- define "deerfield.named" -}}
{{- include "deerfield-common.named" (dict "root" (first .) "suffix" (last .)) -}}
{{- end -}}

{{/* A Service's full name, for other namespaces. Takes a list: the root context, the suffix. */}}
{{- define "deerfield.host" -}}
{{- printf "%s.%s.svc.%s" (include "deerfield.named" .) (first .).Release.Namespace (first .).Values.clusterDomain -}}
{{- end -}}

{{/* The names by which the cluster reaches a Service, as a JSON list. Takes a list: the root context, the suffix. */}}
{{- define "deerfield.serviceNames" -}}
{{- $name := include "deerfield.named" . -}}
{{- $ns := (first .).Release.Namespace -}}
{{- list $name (printf "%s.%s" $name $ns) (printf "%s.%s.svc" $name $ns) (include "deerfield.host" .) | toJson -}}
{{- end -}}

{{/* All hosts of the aggregator's certificate, as a JSON list: its Service, port-forward, and externalNames. */}}
{{- define "deerfield.aggregatorHosts" -}}
{{- $own := include "deerfield.serviceNames" (list . "aggregator") | fromJsonArray -}}
{{- concat $own (list "localhost" "127.0.0.1") .Values.aggregator.externalNames | uniq | toJson -}}
{{- end -}}

{{/* The Secret with the certificate of a party: aggregator, operator, trial, simulation. Takes a list: root, party. */}}
{{- define "deerfield.tlsSecret" -}}
{{- $root := first . -}}
{{- if eq $root.Values.tls.mode "existingSecret" -}}
{{- get $root.Values.tls.existingSecret (last .) -}}
{{- else -}}
{{- include "deerfield.named" (list $root (printf "%s-tls" (last .))) -}}
{{- end -}}
{{- end -}}

{{/* The names of the simulation's sites, which are those of their pods, as a JSON list. */}}
{{- define "deerfield.simulatedSites" -}}
{{- $names := list -}}
{{- $name := include "deerfield.named" (list . "site") -}}
{{- range until (int .Values.simulation.sites) -}}{{- $names = append $names (printf "%s-%d" $name .) -}}{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* The sites of helm test, as a JSON list: those of the simulation, else two of the test pod's own. */}}
{{- define "deerfield.trialSites" -}}
{{- if .Values.simulation.sites -}}{{- include "deerfield.simulatedSites" . -}}
{{- else -}}{{- list "trial-a" "trial-b" | toJson -}}{{- end -}}
{{- end -}}

{{/* "true" where there is a helm test: its parties have certificates. */}}
{{- define "deerfield.tested" -}}
{{- $own := .Values.tls.existingSecret -}}
{{- $sites := or (ne .Values.tls.mode "existingSecret") $own.trial .Values.simulation.sites -}}
{{- $operator := or (ne .Values.tls.mode "existingSecret") $own.operator -}}
{{- if and .Values.trial.enabled (include "deerfield.trackingUri" .) $sites $operator .Values.aggregator.replicas -}}true{{- end -}}
{{- end -}}

{{/* Where MLflow is; empty: nothing is tracked. */}}
{{- define "deerfield.trackingUri" -}}
{{- if .Values.tracking.enabled -}}http://{{ include "deerfield.named" (list . "tracking") }}:5000
{{- else -}}{{ .Values.tracking.externalUri }}{{- end -}}
{{- end -}}

{{/* Secrets with a user and a password, which a person has made or the Job before install makes. */}}
{{- define "deerfield.trackingAuth" -}}
{{- .Values.tracking.auth.existingSecret | default (include "deerfield.named" (list . "tracking-auth")) -}}
{{- end -}}
{{- define "deerfield.postgresqlAuth" -}}
{{- .Values.database.bundled.existingSecret | default (include "deerfield.named" (list . "postgresql-auth")) -}}
{{- end -}}
{{- define "deerfield.seaweedfsAuth" -}}
{{- .Values.objectStore.bundled.existingSecret | default (include "deerfield.named" (list . "seaweedfs-auth")) -}}
{{- end -}}

{{/* The port by which other networks reach the aggregator. */}}
{{- define "deerfield.externalPort" -}}
{{- $values := .Values.aggregator -}}
{{- if has $values.expose (list "gatewayTLSRoute" "ingressPassthrough") -}}443
{{- else if eq $values.expose "NodePort" -}}{{ $values.external.nodePort | default "NODEPORT" }}
{{- else -}}8600{{- end -}}
{{- end -}}
