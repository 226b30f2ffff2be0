{{- define "foundry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "foundry.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "foundry.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "foundry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "foundry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "foundry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "foundry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "foundry.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "foundry.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "foundry.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Whether there may be several pods, so that what needs more than one makes sense. */ -}}
{{- define "foundry.replicated" -}}
{{- if not .Values.persistence.enabled -}}true{{- end -}}
{{- end -}}

{{- /* Values that contradict each other stop the installation: a registry must never keep its data where nobody looks. */ -}}
{{- define "foundry.validate" -}}
{{- $database := .Values.database.host -}}
{{- $bucket := .Values.storage.s3.bucket -}}
{{- $server := default dict .Values.config.server -}}
{{- $tokens := (default dict .Values.config.auth).tokens -}}
{{- /* What the chart decides elsewhere, and the place to say it. */ -}}
{{- $elsewhere := dict
  "host" "a pod listens on all its addresses"
  "port" "a pod listens on 8080; set service.port"
  "shutdown_delay" "set server.preStopSeconds"
  "shutdown_grace" "set server.shutdownGraceSeconds, which the pod's own patience follows"
  "tls" "probes and the Service speak plain HTTP; end TLS at the ingress" -}}
{{- range $key, $place := $elsewhere -}}
{{- if hasKey $server $key -}}
{{- fail (printf "config.server.%s contradicts the chart: %s" $key $place) -}}
{{- end -}}
{{- end -}}
{{- if and $tokens .Values.auth.existingSecret -}}
{{- fail "config.auth.tokens would be without effect beside auth.existingSecret: unset one of them" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not (or .Values.server.trustedProxies $server.trusted_proxies)) -}}
{{- fail "ingress.enabled needs server.trustedProxies, the networks of the ingress controller: all clients would share its address, and be sent to http:// for their tokens" -}}
{{- end -}}
{{- if .Values.persistence.enabled -}}
{{- if $database -}}
{{- fail "persistence.enabled keeps the metadata on its volume; unset database.host" -}}
{{- end -}}
{{- if or (gt (int .Values.replicaCount) 1) .Values.autoscaling.enabled -}}
{{- fail "persistence.enabled is for one server: set replicaCount to 1 and disable autoscaling, or use database.host and storage.s3.bucket" -}}
{{- end -}}
{{- else -}}
{{- if not (and $database $bucket) -}}
{{- fail "set database.host and storage.s3.bucket for replicas, or persistence.enabled with replicaCount 1 for one server" -}}
{{- end -}}
{{- if not .Values.database.existingSecret -}}
{{- fail "database.existingSecret must name a Secret with the password of the database's user" -}}
{{- end -}}
{{- if not (or .Values.auth.existingSecret $tokens) -}}
{{- fail "auth.existingSecret must name a Secret with the administrators' tokens, or config.auth.tokens the files that hold them: replicas have no place to keep one of their own" -}}
{{- end -}}
{{- end -}}
{{- end -}}
