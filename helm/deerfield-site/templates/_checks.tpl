{{/* What values must not say together; each message names its key. Takes the root context. */}}
{{- define "deerfield-site.checks" -}}
{{- include "deerfield-site.checkImage" . -}}
{{- include "deerfield-site.checkPolicy" . -}}
{{- include "deerfield-site.checkData" . -}}
{{- include "deerfield-site.checkReach" . -}}
{{- include "deerfield-site.checkTest" . -}}
{{- end -}}

{{- define "deerfield-site.checkImage" -}}
{{- with .Values.image -}}
{{- include "deerfield-common.checkTags" (dict "image" . "image.client" .client "image.pipelines" .pipelines) -}}
{{- end -}}
{{- end -}}

{{- define "deerfield-site.checkPolicy" -}}
{{- with .Values.policy -}}
{{- $given := list -}}
{{- if .existingConfigMap -}}{{- $given = append $given "policy.existingConfigMap" -}}{{- end -}}
{{- if .existingSecret -}}{{- $given = append $given "policy.existingSecret" -}}{{- end -}}
{{- if .inline -}}{{- $given = append $given "policy.inline" -}}{{- end -}}
{{- if gt (len $given) 1 -}}
{{- fail (printf "%s are set, and a site has one policy; keep one of them" (join " and " $given)) -}}
{{- end -}}
{{- if and (not $given) (not $.Values.trial.enabled) -}}
{{- fail "policy is empty: a site without a policy is refused; set policy.existingConfigMap, policy.existingSecret or policy.inline" -}}
{{- end -}}
{{- if and $.Values.trial.enabled (or .existingConfigMap .existingSecret) -}}
{{- fail (printf "trial.enabled adds to policy.inline, and the policy is in %s: add the lines of examples/trial/policy.yaml there, and leave trial.enabled false" (index $given 0)) -}}
{{- end -}}
{{- range $name, $population := .inline.populations -}}
{{- $path := $population.source.path -}}
{{- if and (hasPrefix "s3://" $path) (not $.Values.data.s3.endpoint) -}}
{{- fail (printf "data.s3.endpoint is empty, and policy.inline.populations.%s reads %s: give the server, or the NetworkPolicy keeps the site from it" $name $path) -}}
{{- end -}}
{{- if and (hasPrefix "/data/" $path) (not $.Values.data.existingClaim) -}}
{{- fail (printf "data.existingClaim is empty, and policy.inline.populations.%s reads %s, which would be in it" $name $path) -}}
{{- end -}}
{{- if and $.Values.trial.enabled (eq $name "trial") -}}
{{- fail "policy.inline.populations.trial: trial.enabled adds a population of that name; give yours another" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "deerfield-site.checkData" -}}
{{- with .Values -}}
{{- if not (or .data.existingClaim .data.s3.endpoint .trial.enabled .trainer.extraVolumes) -}}
{{- fail "data.existingClaim is empty, and so is data.s3.endpoint: say where the data are (or set trial.enabled, to try the installation)" -}}
{{- end -}}
{{- if and .trainer.gpu.mig (not .trainer.gpu.count) -}}
{{- fail "trainer.gpu.mig is set, and trainer.gpu.count is 0: ask for 1, or take the profile out" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "deerfield-site.checkReach" -}}
{{- with .Values -}}
{{- if and .proxy.existingSecret (not .proxy.url) -}}
{{- fail "proxy.url is empty, and proxy.existingSecret is set: the URL without user and password says where the proxy is" -}}
{{- end -}}
{{- if and .egressProof.enabled (not .egressProof.targets) -}}
{{- fail "egressProof.targets is empty: name at least one HOST:PORT that must be out of reach, such as 1.1.1.1:443" -}}
{{- end -}}
{{- if and (eq .mode "ondemand") .networkPolicy.enabled (not .ondemand.apiServer.cidrs) -}}
{{- fail "ondemand.apiServer.cidrs is empty: the agent makes Jobs, and a NetworkPolicy cannot name the API server; give what `kubectl get endpointslices -n default -l kubernetes.io/service-name=kubernetes` shows" -}}
{{- end -}}
{{- if and (eq .mode "ondemand") (not .serviceAccount.create) (not .serviceAccount.name) -}}
{{- fail "serviceAccount.name is empty, and serviceAccount.create is false: name the ServiceAccount of the agent" -}}
{{- end -}}
{{- if and .metrics.podMonitor.enabled .metrics.serviceMonitor.enabled -}}
{{- fail "metrics.podMonitor.enabled and metrics.serviceMonitor.enabled: Prometheus would fetch everything twice; keep one of them" -}}
{{- end -}}
{{- if and (or .metrics.podMonitor.enabled .metrics.serviceMonitor.enabled) (not .metrics.enabled) -}}
{{- fail "metrics.enabled is false, and a monitor is enabled: there would be nothing to fetch" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "deerfield-site.checkTest" -}}
{{- with .Values.test -}}
{{- if .federation.enabled -}}
{{- if not .operatorSecret -}}
{{- fail "test.operatorSecret is empty, and test.federation.enabled is true: a run is started by an operator; name a Secret with an operator's tls.crt, tls.key and ca.crt" -}}
{{- end -}}
{{- if not .federation.tracking.url -}}
{{- fail "test.federation.tracking.url is empty: the test looks for the registered model there; give the consortium's MLflow, http(s)://HOST:PORT" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
