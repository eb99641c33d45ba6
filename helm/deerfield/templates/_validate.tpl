{{/*
What the schema cannot say: rules over several keys. Each sentence begins with the key that is to be changed.
*/}}
{{- define "deerfield.validate" -}}
{{- include "deerfield.validateImages" . -}}
{{- include "deerfield.validateAggregator" . -}}
{{- include "deerfield.validateStores" . -}}
{{- include "deerfield.validateParties" . -}}
{{- include "deerfield.validateEdges" . -}}
{{- end -}}

{{- define "deerfield.validateImages" -}}
{{- with .Values -}}
{{- $own := dict "image" .image "aggregator.image" .aggregator.image "tracking.image" .tracking.image "jobs.image" .jobs.image -}}
{{- $own = merge $own (dict "simulation.image" .simulation.image "database.bundled.image" .database.bundled.image) -}}
{{- include "deerfield-common.checkTags" (merge $own (dict "objectStore.bundled.image" .objectStore.bundled.image)) -}}
{{- end -}}
{{- end -}}

{{- define "deerfield.validateAggregator" -}}
{{- $values := .Values.aggregator -}}
{{- $least := add $values.preStopSeconds (ceil $values.settings.drain) 40 -}}
{{- if lt (int $values.terminationGracePeriodSeconds) (int $least) -}}
{{- fail (printf "aggregator.terminationGracePeriodSeconds is %v; set it to at least preStopSeconds + settings.drain + 40 = %v" $values.terminationGracePeriodSeconds $least) -}}
{{- end -}}
{{- if has $values.expose (list "gatewayTLSRoute" "ingressPassthrough") -}}
{{- if not $values.externalNames -}}
{{- fail (printf "aggregator.externalNames is empty; %s routes by host name, so name the aggregator's, such as agg.example.org" $values.expose) -}}
{{- end -}}
{{- range $values.externalNames -}}
{{- if or (regexMatch "^[0-9.]+$" .) (contains ":" .) -}}
{{- fail (printf "aggregator.externalNames has the address %s; %s routes by host name alone" . $values.expose) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $values.expose "gatewayTLSRoute") (not $values.gateway.parentRefs) -}}
{{- fail "aggregator.gateway.parentRefs is empty; gatewayTLSRoute needs the Gateway: [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and $values.external.nodePort (not (has $values.expose (list "LoadBalancer" "NodePort"))) -}}
{{- fail (printf "aggregator.external.nodePort is %v, and aggregator.expose is %s; set expose to NodePort" $values.external.nodePort $values.expose) -}}
{{- end -}}
{{- end -}}

{{- define "deerfield.validateStores" -}}
{{- $external := .Values.database.external -}}
{{- if eq .Values.database.mode "external" -}}
{{- range $key := list "aggregatorUrl" "trackingUrl" -}}
{{- if regexMatch "^[^/]*//[^/]*:[^/]*@" (get $external $key) -}}
{{- fail (printf "database.external.%s has a password; leave it out, and name the Secret that has it in existingSecret" $key) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.tracking.enabled (not $external.trackingUrl) -}}
{{- fail "database.external.trackingUrl is empty; name MLflow's database, or set tracking.enabled: false" -}}
{{- end -}}
{{- if eq $external.aggregatorUrl $external.trackingUrl -}}
{{- fail "database.external.trackingUrl is the aggregator's database; give MLflow another one" -}}
{{- end -}}
{{- end -}}
{{- if and (ne .Values.objectStore.mode "folder") (eq .Values.objectStore.s3.aggregatorPrefix .Values.objectStore.s3.trackingPrefix) -}}
{{- fail "objectStore.s3.trackingPrefix is the aggregator's; give MLflow another one" -}}
{{- end -}}
{{- if and .Values.tracking.enabled .Values.tracking.externalUri -}}
{{- fail "tracking.externalUri is set; set tracking.enabled: false to use that server, or leave it empty" -}}
{{- end -}}
{{- if and (gt (int .Values.tracking.replicas) 1) (or (eq .Values.database.mode "sqlite") (eq .Values.objectStore.mode "folder")) -}}
{{- fail (printf "tracking.replicas is %v; more than one needs PostgreSQL (database.mode) and S3 (objectStore.mode)" .Values.tracking.replicas) -}}
{{- end -}}
{{- end -}}

{{- define "deerfield.validateParties" -}}
{{- $own := .Values.tls.existingSecret -}}
{{- if and (eq .Values.tls.mode "existingSecret") .Values.simulation.sites (not $own.simulation) -}}
{{- fail "tls.existingSecret.simulation is empty; name the Secret with the certificates of simulation.sites" -}}
{{- end -}}
{{- with .Values.tls.revoked -}}
{{- $entries := fromJsonArray . -}}
{{- range $entries -}}
{{- if or (not (kindIs "map" .)) (not (hasKey (kindIs "map" . | ternary . dict) "serial")) -}}
{{- fail "tls.revoked is no list of revoked serials; give the text of revoked.json: --set-file tls.revoked=ca/revoked.json" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $schedule := .Values.kfp.schedules -}}
{{- if not (has $schedule.pipeline $.Values.kfp.pipelines) -}}
{{- fail (printf "kfp.schedules: %s is of pipeline %s, which kfp.pipelines does not have" $schedule.name $schedule.pipeline) -}}
{{- end -}}
{{- range $parameter, $file := $schedule.files -}}
{{- if not (hasKey $.Values.kfp.files $file) -}}
{{- fail (printf "kfp.files has no %s, which kfp.schedules names in %s" $file $schedule.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails where an edge of the NetworkPolicy that is needed has nobody at its end. Takes a list: root, edge, who needs it. */}}
{{- define "deerfield.validateEdge" -}}
{{- $edge := get (first .).Values.networkPolicy (index . 1) -}}
{{- if not (concat $edge.namespaces $edge.cidrs) -}}
{{- fail (printf "networkPolicy.%s.cidrs is empty, and so is namespaces; %s needs one of them, because policies cannot name hosts" (index . 1) (last .)) -}}
{{- end -}}
{{- end -}}

{{- define "deerfield.validateEdges" -}}
{{- if .Values.networkPolicy.enabled -}}
{{- $expose := .Values.aggregator.expose -}}
{{- if eq .Values.database.mode "external" -}}{{- include "deerfield.validateEdge" (list . "database" "database.mode external") -}}{{- end -}}
{{- if eq .Values.objectStore.mode "s3" -}}{{- include "deerfield.validateEdge" (list . "objectStore" "objectStore.mode s3") -}}{{- end -}}
{{- if .Values.tracking.externalUri -}}{{- include "deerfield.validateEdge" (list . "externalTracking" "tracking.externalUri") -}}{{- end -}}
{{- if has $expose (list "gatewayTLSRoute" "ingressPassthrough") -}}{{- include "deerfield.validateEdge" (list . "gateway" $expose) -}}{{- end -}}
{{- if and (has $expose (list "LoadBalancer" "NodePort")) (not .Values.networkPolicy.sites.cidrs) -}}
{{- fail (printf "networkPolicy.sites.cidrs is empty; with aggregator.expose %s nobody from outside would get in: name their addresses, or 0.0.0.0/0" $expose) -}}
{{- end -}}
{{- if and .Values.kfp.enabled (not (concat .Values.networkPolicy.kfp.apiNamespaces .Values.networkPolicy.kfp.apiCidrs)) -}}
{{- fail "networkPolicy.kfp.apiNamespaces is empty, and so is apiCidrs; kfp.enabled needs one of them" -}}
{{- end -}}
{{- end -}}
{{- end -}}
