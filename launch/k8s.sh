#!/usr/bin/env bash
# Runs an experiment as a Kubernetes job with GPUs.
#
#   IMAGE=registry/ldm-jax:1 CLAIM=scans launch/k8s.sh CONFIG[:ARGS] WORKDIR [FLAGS...]
#
# IMAGE holds the installed package and this repository as its working directory:
#   FROM python:3.12 / COPY . /ldm_jax / WORKDIR /ldm_jax / RUN pip install -e '.[cuda]'
# CLAIM is a PersistentVolumeClaim, mounted at /data: give root= and WORKDIR below it.
# GPUS=1, NAME=ldm-jax, NAMESPACE=default. A job started again resumes. DRY_RUN=1 prints
# the manifest and the command.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

: "${IMAGE:?set IMAGE to a container image with the package (see this script)}"
: "${CLAIM:?set CLAIM to the PersistentVolumeClaim with the data}"
: "${1:?CONFIG[:ARGS], the first argument, is missing}"
: "${2:?WORKDIR, the second argument, is missing; a folder below /data}"

for name in PARALLELISM COMPLETIONS; do
  [[ ${!name:-1} == 1 ]] || fail "$name=${!name}: one process only so far, since" \
    'several pods would write the same WORKDIR. GPUS gives the one pod more GPUs.'
done

json() { # A string as JSON, which YAML reads.
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

arguments=$(json "--config=$1"),$(json "--workdir=$2")
for flag in "${@:3}"; do arguments+=,$(json "$flag"); done

manifest="apiVersion: batch/v1
kind: Job
metadata:
  name: $(json "${NAME:-ldm-jax}")
spec:
  backoffLimit: 3
  parallelism: 1
  completions: 1
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: ldm-jax
        image: $(json "$IMAGE")
        command: [\"ldm-jax\"]
        args: [$arguments]
        resources: {limits: {nvidia.com/gpu: ${GPUS:-1}}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes:
      - name: data
        persistentVolumeClaim: {claimName: $(json "$CLAIM")}"

if dry; then printf '%s\n' "$manifest"; fi
run kubectl "--namespace=${NAMESPACE:-default}" apply -f - <<< "$manifest"
