{{/*
The Secret with the certificate of one site of the simulation, or of helm test with cert-manager: each has one of its own,
so that more sites need no other Secret than theirs. Takes a list: root, the site's place among them.
*/}}
{{- define "deerfield.siteSecret" -}}
{{- $root := first . -}}
{{- $suffix := printf "site-%d" (int (last .)) -}}
{{- if not $root.Values.simulation.sites -}}{{- $suffix = index (list "trial-a" "trial-b") (int (last .)) -}}{{- end -}}
{{- include "deerfield.named" (list $root (printf "%s-tls" $suffix)) -}}
{{- end -}}

{{/*
The volume with SITE.crt and SITE.key for each site of helm test or of the simulation, and ca.crt. Takes the root context.
*/}}
{{- define "deerfield.sitesVolume" -}}
{{- $mode := .Values.tls.mode -}}
{{- $simulated := gt (int .Values.simulation.sites) 0 -}}
{{- if or (eq $mode "certManager") (and (eq $mode "generated") $simulated) -}}
- name: sites-tls
  projected:
    defaultMode: 0400
    sources:
      {{- range $index, $site := include "deerfield.trialSites" . | fromJsonArray }}
      - secret:
          name: {{ include "deerfield.siteSecret" (list $ $index) }}
          optional: true
          items:
            - {key: tls.crt, path: {{ $site }}.crt}
            - {key: tls.key, path: {{ $site }}.key}
            {{- if not $index }}
            - {key: ca.crt, path: ca.crt}
            {{- end }}
      {{- end }}
{{- else -}}
- name: sites-tls
  secret:
    secretName: {{ include "deerfield.tlsSecret" (list . ($simulated | ternary "simulation" "trial")) }}
    optional: true
    defaultMode: 0400
{{- end -}}
{{- end -}}
