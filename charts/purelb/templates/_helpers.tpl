{{- define "purelb.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of every object; call with (dict "root" $ "component" "allocator"), component may be empty. */}}
{{- define "purelb.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{ include "purelb.selector" . }}
{{- end }}

{{- define "purelb.selector" -}}
app.kubernetes.io/name: purelb
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
component: {{ . }}
{{- end }}
{{- end }}

{{- define "purelb.env" -}}
- name: PURELB_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: PURELB_DEFAULT_ANNOUNCER
  value: {{ .Values.defaultAnnouncer | quote }}
- name: PURELB_LOG_FILTER
  value: {{ .Values.log.filter | quote }}
- name: PURELB_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- end }}

{{- define "purelb.probes" -}}
ports:
  - { name: metrics, containerPort: 7472 }
livenessProbe:
  httpGet: { path: /healthz, port: metrics }
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 2
{{- end }}

{{- /* How long routers have before routes are withdrawn: refused where the pod would be killed meanwhile. */ -}}
{{- define "purelb.drainWait" -}}
{{- $wait := .Values.lbnodeagent.drainWait -}}
{{- $grace := .Values.lbnodeagent.terminationGracePeriodSeconds -}}
{{- $ms := ternary (trimSuffix "ms" $wait | int) (mul 1000 (trimSuffix "s" $wait | int)) (hasSuffix "ms" $wait) -}}
{{- if and (ne .Values.lbnodeagent.onShutdown "keep") (gt (int $ms) 0) (gt (add $ms 10000) (mul 1000 (int $grace))) -}}
{{- fail (printf "lbnodeagent.drainWait is %s, and an agent is killed after lbnodeagent.terminationGracePeriodSeconds, %d: expected at least 10 seconds less" $wait (int $grace)) -}}
{{- end -}}
{{- $wait -}}
{{- end }}
