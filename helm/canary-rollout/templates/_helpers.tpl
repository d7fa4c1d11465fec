{{/* Prefix of all names: the release's, which says canary-rollout where it does not already. The longest, a Service's, has 17
     characters more, and may have 63 and no dot. */}}
{{- define "canary-rollout.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "canary-rollout.operator" -}}
{{ include "canary-rollout.fullname" . }}-operator
{{- end -}}

{{- define "canary-rollout.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "canary-rollout.operator" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "canary-rollout.common" -}}
app.kubernetes.io/name: canary-rollout
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "canary-rollout.labels" -}}
{{ include "canary-rollout.common" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "canary-rollout.selector" -}}
app.kubernetes.io/name: canary-rollout
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Rules of one role of files/rbac.yaml, the copy of manifests/rbac.yaml: dict "root" $ "role" name. */}}
{{- define "canary-rollout.rules" -}}
{{- $wanted := .role -}}
{{- range splitList "\n---\n" (.root.Files.Get "files/rbac.yaml") -}}
{{- $document := fromYaml . -}}
{{- if and (hasKey $document "rules") (eq $document.metadata.name $wanted) -}}
{{- toYaml $document.rules -}}
{{- end -}}
{{- end -}}
{{- end -}}
