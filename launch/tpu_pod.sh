#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU virtual machine.
#
#   PROJECT=... ZONE=us-central2-b TPU_NAME=... \
#     launch/tpu_pod.sh CONFIG[:ARGS] WORKDIR [FLAGS...]
#
# TPU_TYPE=v4-8 (any type) creates the machine first, with the system image of
# TPU_IMAGE. WORKDIR is a folder on the machine's disk, and private scans must lie there
# too: nothing but code is copied. For machines of one host (types up to -8); a slice of
# several hosts is refused: the command line is one process so far.
# SETUP='sudo apt-get install -y python3.11-venv' runs first, where the image's Python is
# older than 3.11. The same command again resumes. DRY_RUN=1 prints the commands.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE to the zone of the TPU, such as ZONE=us-central2-b}"
: "${TPU_NAME:?set TPU_NAME to the name of the TPU virtual machine}"
: "${1:?CONFIG[:ARGS], the first argument, is missing}"
: "${2:?WORKDIR, the second argument, is missing}"

tpu() { # tpu VERB TARGET...: one call of gcloud
  run gcloud compute tpus tpu-vm "$@" "--project=$PROJECT" "--zone=$ZONE"
}

several() { # several WHAT: refuses a slice of more than one host
  fail "$1. One process on one host only so far, since several would write the same" \
    'work folder: take a type of one host, such as v4-8, v5litepod-8 or v6e-8.'
}

# The number after the last dash counts cores or chips; a host has 8 of them at most.
size=${TPU_TYPE:-}
size=${size##*-}
if [[ $size =~ ^[0-9]+$ ]] && ((10#$size > 8)); then
  several "TPU_TYPE=$TPU_TYPE is a slice of several hosts"
fi
if [[ -n ${TPU_TYPE:-} ]]; then
  tpu create "$TPU_NAME" "--accelerator-type=$TPU_TYPE" \
    "--version=${TPU_IMAGE:-tpu-ubuntu2204-base}"
fi
if dry; then
  tpu describe "$TPU_NAME" '--format=value(networkEndpoints.len())'
else
  hosts=$(tpu describe "$TPU_NAME" '--format=value(networkEndpoints.len())')
  [[ $hosts == 1 ]] || several "$TPU_NAME has ${hosts:-an unknown number of} hosts"
fi
tpu ssh "$TPU_NAME" "--command=mkdir -p ldm_jax${SETUP:+ && $SETUP}"
tpu scp --recurse "$repo/setup.py" "$repo/pyproject.toml" "$repo/README.md" \
  "$repo/ldm_jax" "$repo/configs" "$repo/launch" "$TPU_NAME:ldm_jax"
command="EXTRAS=tpu ldm_jax/launch/local.sh$(printf ' %q' "$@")"
tpu ssh "$TPU_NAME" "--command=$command"
