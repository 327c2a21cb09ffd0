#!/usr/bin/env bash
# Runs an experiment on Kubernetes: one pod or several, on GPUs or on a TPU slice of GKE.
#
#   IMAGE=registry/ldm-jax:1 CLAIM=scans launch/k8s.sh CONFIG[:ARGS] WORKDIR [FLAGS...]
#   PODS=4 GPUS=8 IMAGE=... CLAIM=... launch/k8s.sh configs/cardiac.py:full /data/run
#   PODS=4 TPU=tpu-v5p-slice TOPOLOGY=2x2x4 IMAGE=... CLAIM=... launch/k8s.sh ...
#
# IMAGE: docker build --build-arg EXTRAS=cuda (or tpu) with the repository's Dockerfile.
# CLAIM is a PersistentVolumeClaim, mounted at /data: give root= and WORKDIR below it;
# for several pods it must allow ReadWriteMany (Filestore, NFS). The registry of private
# releases is kept there as well, in /data/.state, since a pod's own disk is lost.
# PODS=1 pods of GPUS=1 GPUs, or of TPU chips of the slice TOPOLOGY (CHIPS=4 a pod).
# CPU=8 and MEMORY=32Gi are asked for each pod. KIND=jobset (of the JobSet operator,
# https://jobset.sigs.k8s.io, the default for several pods) or KIND=job (an indexed Job
# with a headless Service, without an operator). NAME=ldm-jax, NAMESPACE=default.
#
# A pod that is lost ends the others within a minute, all pods are made anew (at most
# RESTARTS=20 times) and go on from the last checkpoint; what a restart cannot repair,
# such as a wrong config, ends the run. Kubernetes starts nothing under a name that is
# there: to go on with a run that has ended, `kubectl delete jobset NAME` (or job NAME)
# and give the same command; other flags need this, too. DRY_RUN=1 prints the manifest
# and the command.
# TOOL=sweep.py ARMS=N runs N single pods of that script of launch/ instead, each told
# its number (launch/sweep.py --on=k8s, which calls this for each phase).
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

: "${IMAGE:?set IMAGE to a container image with the package (see this script)}"
: "${CLAIM:?set CLAIM to the PersistentVolumeClaim with the data}"
: "${1:?CONFIG[:ARGS], the first argument, is missing}"
: "${2:?WORKDIR, the second argument, is missing; a folder below /data}"

pods=${PODS:-1} gpus=${GPUS:-1} chips=${CHIPS:-4} restarts=${RESTARTS:-20}
tasks=${ARMS:-$pods}
name=${NAME:-ldm-jax} namespace=${NAMESPACE:-default} tpu=${TPU:-}
for each in pods gpus chips restarts; do
  [[ ${!each} =~ ^[0-9]+$ ]] || fail "${each^^}=${!each}; expected a number."
done
((pods > 0)) || fail "PODS=$pods; expected at least 1."
[[ $tasks =~ ^[1-9][0-9]*$ ]] || fail "ARMS=$tasks; expected a number from 1 up."
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
  fail "NAME=$name; expected at most 40 small letters, digits and dashes."
kind=${KIND:-$( ((pods > 1)) && echo jobset || echo job)}
[[ $kind == jobset || $kind == job ]] || fail "KIND=$kind; expected jobset or job."
if [[ -n $tpu ]]; then
  : "${TOPOLOGY:?set TOPOLOGY to that of the TPU slice, such as TOPOLOGY=2x2x4}"
fi

json() { # A string as JSON, which YAML reads.
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# Pod 0 of the first job holds the coordinator; its name is found by the Service.
if [[ $kind == jobset ]]; then
  coordinator="$name-workers-0-0.$name:8476"
else
  coordinator="$name-0.$name:8476"
fi
# A container's $(VARIABLE) is filled in by Kubernetes, and $$ stands for a $.
escaped() { json "${1//'$'/'$$'}"; }
command='"ldm-jax"'
arguments=$(escaped "--config=$1"),$(escaped "--workdir=$2")
if [[ -n ${TOOL:-} ]]; then
  ((pods == 1)) || fail "TOOL=$TOOL with PODS=$pods; expected one pod an arm."
  # Where an installed package has the launch scripts.
  found="from ldm_jax.config import parsing; print(parsing.packaged('launch'))"
  script="exec python \"\$(python -c \"$found\")/$TOOL\" \"\$@\""
  command="\"sh\", \"-c\", $(escaped "$script"), \"sh\""
  arguments=$(escaped "$1"),$(escaped "$2")
fi
for flag in "${@:3}"; do arguments+=,$(escaped "$flag"); done
if ((pods > 1)); then
  arguments+=",\"--coordinator=$coordinator\",\"--num_processes=$pods\""
  arguments+=",\"--process_id=\$(JOB_COMPLETION_INDEX)\""
fi

if [[ -n $tpu ]]; then
  devices="google.com/tpu: $chips"
  selector="
nodeSelector:
  cloud.google.com/gke-tpu-accelerator: $(json "$tpu")
  cloud.google.com/gke-tpu-topology: $(json "$TOPOLOGY")"
else
  devices="nvidia.com/gpu: $gpus" selector=
  ((gpus > 0)) || devices=
fi
memory=${MEMORY:-32Gi}
resources="requests: {cpu: $(json "${CPU:-8}"), memory: $(json "$memory")}, limits: {memory: $(json "$memory")${devices:+, $devices}}"

indent() { # indent N TEXT
  local space
  printf -v space "%$1s" ''
  printf '%s' "${2//$'\n'/$'\n'$space}"
}

# Status 143: stopped by SIGTERM; 75: another pod was lost; 137: killed. Any other is the
# run's own end, which a restart would only repeat.
pod="metadata:
  labels: {app: $(json "$name")}
spec:
  restartPolicy: Never
  subdomain: $(json "$name")
  terminationGracePeriodSeconds: 120$(indent 2 "$selector")
  containers:
  - name: ldm-jax
    image: $(json "$IMAGE")
    command: [$command]
    args: [$arguments]
    env: [{name: XDG_STATE_HOME, value: /data/.state}, {name: XDG_CACHE_HOME, value: /tmp}]
    ports: [{containerPort: 8476}]
    resources: {$resources}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: shm, mountPath: /dev/shm}
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: $(json "$CLAIM")}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: 8Gi}"

# Of a JobSet, any pod's end but success ends its job at once (backoffLimit 0), and all
# pods are made anew; a job without one makes the pod anew that has ended.
rules="  - action: FailJob
    onExitCodes: {containerName: ldm-jax, operator: In, values: [1, 2]}"
backoff='backoffLimit: 0'
if [[ -n ${TOOL:-} ]]; then # an arm that fails ends no other
  backoff="backoffLimitPerIndex: $restarts" rules=${rules/FailJob/FailIndex}
elif [[ $kind == job ]]; then
  backoff="backoffLimit: $((restarts * pods))"
fi
if [[ $kind == job ]]; then
  rules+="
  - action: Ignore
    onPodConditions: [{type: DisruptionTarget, status: \"True\"}]"
fi
job="completionMode: Indexed
parallelism: $tasks
completions: $tasks
$backoff
podFailurePolicy:
  rules:
$rules
template:
  $(indent 2 "$pod")"

if [[ $kind == jobset ]]; then
  manifest="apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $(json "$name")$([[ -z $tpu ]] || printf '\n  annotations: {alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool}')
spec:
  network: {enableDNSHostnames: true, subdomain: $(json "$name"), publishNotReadyAddresses: true}
  failurePolicy:
    maxRestarts: $restarts
    rules:
    - {name: final, action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}
  replicatedJobs:
  - name: workers
    replicas: 1
    template:
      spec:
        $(indent 8 "$job")"
else
  manifest="apiVersion: v1
kind: Service
metadata:
  name: $(json "$name")
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: $(json "$name")}
  ports: [{port: 8476}]
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $(json "$name")
spec:
  $(indent 2 "$job")"
fi

if dry; then printf '%s\n' "$manifest"; fi
run kubectl "--namespace=$namespace" apply -f - <<< "$manifest"
