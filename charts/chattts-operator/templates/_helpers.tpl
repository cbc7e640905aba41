{{/* Names and labels; every other template takes them from here. */}}

{{- define "chattts-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Cluster-wide objects also carry the namespace, so that two releases of one name do not collide. */}}
{{- define "chattts-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "chattts-operator.fullname" .) }}
{{- end }}

{{- define "chattts-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "chattts-operator.labels" -}}
{{ include "chattts-operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: chattts-k8s
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "chattts-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "chattts-operator.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "chattts-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The server's image lies beside the operator's, as `make images` pushes them. */}}
{{- define "chattts-operator.serverImage" -}}
{{- $beside := regexReplaceAll "[^/]+$" .Values.image.repository "chattts-server" }}
{{- .Values.defaults.server.image | default (printf "%s:%s" $beside (.Values.image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- define "chattts-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "chattts-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "chattts-operator.serviceSelector" -}}
{{- $parts := list }}
{{- range $name, $value := .Values.serviceSelector }}{{ $parts = append $parts (printf "%s=%s" $name $value) }}{{ end }}
{{- join "," $parts }}
{{- end }}

{{/* The driver gate reads nodes, which belong to no namespace: with watchNamespaces it is off. */}}
{{- define "chattts-operator.checksDrivers" -}}
{{- if and .Values.drivers.check (not .Values.watchNamespaces) }}true{{ else }}false{{ end }}
{{- end }}

{{/* What the operator does to objects in the namespaces it looks after. tests/chart holds the same list. */}}
{{- define "chattts-operator.rules" -}}
- apiGroups: [chattts.dev]
  resources: [ttsservices]
  verbs: [get, list, watch]
- apiGroups: [chattts.dev]
  resources: [ttsservices/status]
  verbs: [patch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, persistentvolumeclaims, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors, prometheusrules]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}
