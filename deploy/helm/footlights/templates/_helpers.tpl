{{- define "footlights.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a selector may hold: never changes over a release's life. Takes {root, component}. */}}
{{- define "footlights.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "footlights.labels" -}}
{{ include "footlights.selector" . }}
app.kubernetes.io/part-of: footlights
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes {root, name, component, annotations, clusterWide}. */}}
{{- define "footlights.metadata" -}}
name: {{ .name }}
{{- if not .clusterWide }}
namespace: {{ .root.Release.Namespace }}
{{- end }}
labels:
  {{- include "footlights.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes {root, image}. */}}
{{- define "footlights.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Takes {root, account, component}. */}}
{{- define "footlights.account" -}}
{{- if .account.create -}}
{{- default (printf "%s-%s" (include "footlights.fullname" .root) .component) .account.name -}}
{{- else -}}
{{- default "default" .account.name -}}
{{- end -}}
{{- end -}}

{{/*
The Deployments of the control plane, as a list. Their label `footlights.io/serves` says what a Service finds in them.
*/}}
{{- define "footlights.groups" -}}
{{- if .Values.server.split.enabled }}
- component: web
  roles: api,frontdoor,loops
  replicas: {{ .Values.server.replicaCount }}
  scaled: {{ .Values.server.autoscaling.enabled }}
  resources: {{ toJson .Values.server.resources }}
- component: hub
  roles: hub
  replicas: {{ .Values.server.split.hubReplicaCount }}
  scaled: false
  resources: {{ toJson .Values.server.hubResources }}
{{- else }}
- component: server
  roles: api,frontdoor,hub,loops
  replicas: {{ .Values.server.replicaCount }}
  scaled: {{ .Values.server.autoscaling.enabled }}
  resources: {{ toJson .Values.server.resources }}
{{- end }}
{{- end -}}

{{- define "footlights.web" -}}{{ ternary "web" "server" .Values.server.split.enabled }}{{- end -}}
{{- define "footlights.hub" -}}{{ ternary "hub" "server" .Values.server.split.enabled }}{{- end -}}
{{- define "footlights.scheme" -}}{{ ternary "HTTPS" "HTTP" .Values.server.tls.enabled }}{{- end -}}

{{/* The authority that agents and Prometheus know the servers by, as a source of its ca.crt; empty: the system's. */}}
{{- define "footlights.ca" -}}
{{- if not .Values.server.tls.enabled -}}
{{- else if .Values.agent.caSecret -}}
secret: {name: {{ .Values.agent.caSecret }}, key: ca.crt}
{{- else if not .Values.server.tls.existingSecret -}}
configMap: {name: {{ include "footlights.fullname" . }}-ca, key: ca.crt}
{{- end -}}
{{- end -}}

{{/* Whether servers call Kubernetes: for agents' pods, or to say what proves them; empty: no. */}}
{{- define "footlights.callsKubernetes" -}}
{{- if or .Values.agent.enabled (include "footlights.ca" . | fromYaml).configMap -}}yes{{- end -}}
{{- end -}}

{{/* Where the Services are reached: at their names, alone and with their namespace. */}}
{{- define "footlights.serviceNames" -}}
{{- range $service := list "http" "grpc" "hub" }}
{{- $name := printf "%s-%s" (include "footlights.fullname" $) $service }}
- {{ $name }}
- {{ $name }}.{{ $.Release.Namespace }}
- {{ $name }}.{{ $.Release.Namespace }}.svc
- {{ $name }}.{{ $.Release.Namespace }}.svc.cluster.local
{{- end }}
{{- end -}}

{{/* How Prometheus scrapes by HTTPS: by address, so it is told the name that the certificate contains. */}}
{{- define "footlights.scrapeTls" -}}
{{- with include "footlights.ca" . }}
ca:
  {{- . | nindent 2 }}
serverName: {{ include "footlights.fullname" $ }}-hub.{{ $.Release.Namespace }}.svc
{{- else }}
insecureSkipVerify: true
{{- end }}
{{- end -}}

{{/* Where agents dial. */}}
{{- define "footlights.agentServer" -}}
{{- default (printf "%s-hub.%s.svc:%d" (include "footlights.fullname" .) .Release.Namespace (int .Values.server.service.grpcPort)) .Values.agent.server -}}
{{- end -}}
