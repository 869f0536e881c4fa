{{/* Each of these changes `object`, a manifest of files/, to what the values say, and prints nothing. */}}

{{- define "slos.adjust" }}
{{- if eq .object.kind "Deployment" }}{{ include "slos.deployment" . }}
{{- else if eq .object.kind "ConfigMap" }}{{ include "slos.configmap" . }}
{{- else if eq .object.kind "NetworkPolicy" }}{{ include "slos.networkpolicy" . }}
{{- else if eq .object.kind "PersistentVolumeClaim" }}{{ include "slos.claim" . }}
{{- else if eq .object.kind "ScaledObject" }}{{ include "slos.scaledobject" . }}
{{- else if eq .object.kind "HorizontalPodAutoscaler" }}{{ include "slos.hpa" . }}
{{- end }}
{{- end }}

{{- define "slos.configmap" }}
{{- $name := trimPrefix "slos-" .object.metadata.name }}
{{- if eq $name "model" }}{{ $_ := set .object "data" .root.Values.model }}
{{- else if hasKey .root.Values.config $name }}
{{- with index .root.Values.config $name }}{{ $_ := set $.object.data "config.yaml" (printf "%s\n" (toYaml .)) }}{{ end }}
{{- end }}
{{- end }}

{{- define "slos.networkpolicy" }}
{{- range $rule := .object.spec.ingress }}{{ range $peer := $rule.from }}{{ with $peer.namespaceSelector }}
{{- $_ := set .matchLabels "kubernetes.io/metadata.name" $.root.Values.networkPolicies.monitoringNamespace }}
{{- end }}{{ end }}{{ end }}
{{- end }}

{{- define "slos.claim" }}
{{- $_ := set .object.spec.resources.requests "storage" .root.Values.modelCache.size }}
{{- with .root.Values.modelCache.storageClass }}{{ $_ := set $.object.spec "storageClassName" . }}{{ end }}
{{- end }}

{{- define "slos.scaledobject" }}
{{- $limits := index .root.Values.autoscaling (index .object.metadata.labels "app.kubernetes.io/component") }}
{{- $_ := set .object.spec "minReplicaCount" $limits.min }}
{{- $_ := set .object.spec "maxReplicaCount" $limits.max }}
{{- $_ := set .object.spec.fallback "replicas" $limits.min }}
{{- $metadata := (first .object.spec.triggers).metadata }}
{{- $_ := set $metadata "serverAddress" .root.Values.autoscaling.prometheus }}
{{- with .root.Values.autoscaling.selector }}
{{- $_ := set $metadata "query" (replace "{" (printf "{%s," .) $metadata.query) }}
{{- end }}
{{- end }}

{{- define "slos.hpa" }}
{{- $_ := set .object.spec "minReplicas" .root.Values.autoscaling.gateway.min }}
{{- $_ := set .object.spec "maxReplicas" .root.Values.autoscaling.gateway.max }}
{{- end }}

{{- define "slos.deployment" }}
{{- $values := .root.Values }}
{{- $component := index .object.metadata.labels "app.kubernetes.io/component" }}
{{- $own := index $values $component }}
{{- $engine := has $component (list "prefill" "decode") }}
{{- $shared := $engine | ternary $values.engines dict }}
{{- $pod := .object.spec.template.spec }}
{{- $container := first $pod.containers }}

{{- if ne $component "planner" }}
{{- if $values.autoscaling.enabled }}{{ $_ := unset .object.spec "replicas" }}
{{- else }}{{ $_ := set .object.spec "replicas" $own.replicas }}{{ end }}
{{- end }}

{{- $image := index $values.images ($engine | ternary "engine" $component) }}
{{- with $values.images.registry }}{{ $image = printf "%s/%s" (trimSuffix "/" .) $image }}{{ end }}
{{- $_ := set $container "image" (printf "%s:%s" $image ($values.images.tag | default .root.Chart.AppVersion)) }}
{{- with $values.images.pullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end }}

{{- /* The grace period: the time to drain, and 15 s to end. */}}
{{- $option := printf "SLOS_%s_%s_LIMIT_S" (upper $component) (eq $component "planner" | ternary "SHUTDOWN" "DRAIN") }}
{{- $limit := $own.shutdownLimitSeconds | default $own.drainLimitSeconds | default $shared.drainLimitSeconds | int }}
{{- $_ := set $pod "terminationGracePeriodSeconds" (add $limit 15) }}
{{- $env := list }}
{{- range $one := $container.env }}
{{- if eq $one.name $option }}{{ $one = dict "name" $option "value" (toString $limit) }}{{ end }}
{{- $env = append $env $one }}
{{- end }}
{{- $_ := set $container "env" (concat $env ($shared.env | default list) $own.env) }}

{{- with mergeOverwrite (deepCopy ($shared.resources | default dict)) $own.resources }}
{{- $_ := set $container "resources" . }}
{{- end }}
{{- with mergeOverwrite (deepCopy ($shared.nodeSelector | default dict)) $own.nodeSelector }}
{{- $_ := set $pod "nodeSelector" . }}
{{- end }}
{{- with concat ($shared.tolerations | default list) $own.tolerations }}
{{- $_ := set $pod "tolerations" . }}
{{- end }}
{{- with $shared.addCapabilities }}{{ $_ := set $container.securityContext.capabilities "add" . }}{{ end }}

{{- range $volume := $pod.volumes }}
{{- if eq $volume.name "shm" }}{{ $_ := set $volume.emptyDir "sizeLimit" $shared.sharedMemory }}{{ end }}
{{- if eq $volume.name "cluster-secret" }}{{ $_ := set $volume.secret "secretName" $values.clusterSecret.secret }}{{ end }}
{{- if eq $volume.name "huggingface" }}{{ $_ := set $volume.secret "secretName" $values.huggingface.secret }}{{ end }}
{{- if and (eq $volume.name "cache") $values.modelCache.enabled }}
{{- $_ := unset $volume "emptyDir" }}
{{- $_ := set $volume "persistentVolumeClaim" (dict "claimName" "slos-cache") }}
{{- end }}
{{- end }}

{{- $target := dict "pod" $pod "container" $container }}
{{- if and $values.apiKeys.enabled (eq $component "gateway") }}
{{- include "slos.secretfile" (merge (dict "volume" "api-keys" "secret" $values.apiKeys.secret
    "option" "SLOS_GATEWAY_API_KEY_FILE" "folder" "/run/secrets/slos" "file" "api-keys") $target) }}
{{- end }}
{{- if not $values.clusterSecret.enabled }}{{ include "slos.insecure" $target }}{{ end }}

{{- /* Pods are replaced when their options change, as with the base's names of ConfigMaps. */}}
{{- $checked := list $values.model (index $values.config ($engine | ternary "engines" $component)) }}
{{- $_ := set .object.spec.template.metadata "annotations" (dict "checksum/config" (toYaml $checked | sha256sum)) }}
{{- end }}

{{/* Takes the cluster's secret out. */}}
{{- define "slos.insecure" }}
{{- range $where, $key := dict "env" "SLOS_CLUSTER_SECRET_FILE" "volumeMounts" "cluster-secret" }}
{{- $kept := list }}
{{- range $one := index $.container $where }}{{ if ne $one.name $key }}{{ $kept = append $kept $one }}{{ end }}{{ end }}
{{- $_ := set $.container $where $kept }}
{{- end }}
{{- $_ := set .container "env" (append .container.env (dict "name" "SLOS_INSECURE" "value" "true")) }}
{{- $volumes := list }}
{{- range $one := .pod.volumes }}{{ if ne $one.name "cluster-secret" }}{{ $volumes = append $volumes $one }}{{ end }}{{ end }}
{{- $_ := set .pod "volumes" $volumes }}
{{- end }}

{{/* Mounts a Secret and names its file to an option. */}}
{{- define "slos.secretfile" }}
{{- $variable := dict "name" .option "value" (printf "%s/%s" .folder .file) }}
{{- $_ := set .container "env" (append .container.env $variable) }}
{{- $mount := dict "name" .volume "mountPath" .folder "readOnly" true }}
{{- $_ := set .container "volumeMounts" (append .container.volumeMounts $mount) }}
{{- $secret := dict "secretName" .secret "defaultMode" 288 }}
{{- $_ := set .pod "volumes" (append .pod.volumes (dict "name" .volume "secret" $secret)) }}
{{- end }}
