#!/usr/bin/env bash
# Runs an experiment on a Cloud TPU slice, on every one of its hosts.
#
#   PROJECT=... ZONE=us-central2-b TPU_NAME=... \
#     launch/tpu_pod.sh CONFIG[:ARGS] WORKDIR [FLAGS...]
#
# TPU_TYPE=v4-8, v5litepod-16, v5p-128, ... makes the slice first, with the system image
# TPU_IMAGE, by default the one that Google names for JAX on this type. QUEUED=1 asks for
# it as a queued resource and waits until it is there; SPOT=1 as a spot slice, which is
# deleted and asked for again when it was preempted, at most RESTARTS=20 times: the run
# goes on from its last checkpoint.
#
# WORKDIR and private scans: on the machine's disk for one host. The hosts of a larger
# slice need a folder that all of them mount; MOUNT says how, and runs on each:
#   Filestore: MOUNT='sudo apt-get install -y nfs-common && sudo mkdir -p /shared &&
#     sudo mount -o hard 10.0.0.2:/share /shared'
#   gcsfuse:   MOUNT='mkdir -p ~/shared && gcsfuse --implicit-dirs BUCKET ~/shared'
#     (it has no file locks: put the ledger on Filestore, --config.ledger.path=...)
# SETUP='sudo apt-get install -y python3.11-venv' runs first, where the image's Python is
# older than 3.11. The same command again resumes. DRY_RUN=1 prints the commands.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

: "${PROJECT:?set PROJECT to the Google Cloud project}"
: "${ZONE:?set ZONE to the zone of the TPU, such as ZONE=us-central2-b}"
: "${TPU_NAME:?set TPU_NAME to the name of the TPU slice}"
: "${1:?CONFIG[:ARGS], the first argument, is missing}"
: "${2:?WORKDIR, the second argument, is missing}"
restarts=${RESTARTS:-20}
# https://cloud.google.com/tpu/docs/runtimes, "PyTorch and JAX"
case ${TPU_TYPE:-} in
  v5litepod-*) image=v2-alpha-tpuv5-lite ;;
  v5p-*) image=v2-alpha-tpuv5 ;;
  v6e-*) image=v2-alpha-tpuv6e ;;
  *) image=tpu-ubuntu2204-base ;;
esac
image=${TPU_IMAGE:-$image}
[[ $restarts =~ ^[0-9]+$ ]] || fail "RESTARTS=$restarts; expected a number."
if [[ ${SPOT:-0} == 1 || ${QUEUED:-0} == 1 ]]; then
  : "${TPU_TYPE:?set TPU_TYPE, such as v5litepod-16, where SPOT=1 or QUEUED=1}"
fi

tpu() { # tpu VERB TARGET...: one call of gcloud
  run gcloud compute tpus tpu-vm "$@" "--project=$PROJECT" "--zone=$ZONE"
}

queued() { # queued VERB TARGET...
  run gcloud compute tpus queued-resources "$@" "--project=$PROJECT" "--zone=$ZONE"
}

state() { # Of the slice: READY, PREEMPTED, ...; empty where there is none.
  gcloud compute tpus tpu-vm describe "$TPU_NAME" '--format=value(state)' \
    "--project=$PROJECT" "--zone=$ZONE" 2> /dev/null || true
}

request() { # State of the queued resource: WAITING_FOR_RESOURCES, FAILED, ...; or empty.
  gcloud compute tpus queued-resources describe "$TPU_NAME" \
    '--format=value(state.state)' "--project=$PROJECT" "--zone=$ZONE" 2> /dev/null || true
}

ask_for() { # Makes the slice, unless it is there.
  [[ -n ${TPU_TYPE:-} ]] || return 0
  if ! dry && [[ $(state) == READY ]]; then return 0; fi
  local spot=()
  [[ ${SPOT:-0} != 1 ]] || spot=(--spot)
  if [[ ${QUEUED:-0} == 1 || ${SPOT:-0} == 1 ]]; then
    # One that an earlier call asked for is waited for, unless nothing will come of it.
    local found=''
    dry || found=$(request)
    case $found in FAILED | SUSPENDED) give_back && found='' ;; esac
    [[ -n $found ]] ||
      queued create "$TPU_NAME" "--node-id=$TPU_NAME" \
        "--accelerator-type=$TPU_TYPE" "--runtime-version=$image" "${spot[@]}"
    dry && return 0
    until [[ $(state) == READY ]]; do
      found=$(request)
      [[ $found != FAILED && $found != SUSPENDED ]] ||
        fail "the queued resource $TPU_NAME is $found; 'gcloud compute tpus" \
          "queued-resources describe $TPU_NAME' says why. The same command asks again."
      say "waiting for $TPU_NAME ($TPU_TYPE)"
      sleep 60
    done
  else
    tpu create "$TPU_NAME" "--accelerator-type=$TPU_TYPE" "--version=$image"
  fi
}

give_back() { # A preempted slice cannot be used again.
  if [[ ${QUEUED:-0} == 1 || ${SPOT:-0} == 1 ]]; then
    queued delete "$TPU_NAME" --force --quiet
  else
    tpu delete "$TPU_NAME" --quiet
  fi
}

on_all() { # on_all COMMAND: on every host of the slice
  tpu ssh "$TPU_NAME" --worker=all "--command=$1"
}

prepare() { # Copies the code and installs it on every host.
  on_all "mkdir -p ldm_jax${SETUP:+ && $SETUP}${MOUNT:+ && $MOUNT}" &&
    tpu scp --recurse --worker=all "$repo/setup.py" "$repo/pyproject.toml" \
      "$repo/README.md" "$repo/ldm_jax" "$repo/configs" "$repo/launch" \
      "$TPU_NAME:ldm_jax"
}

# jax finds the hosts of the slice by itself.
command="EXTRAS=tpu ldm_jax/launch/local.sh$(printf ' %q' "$@")"
for ((attempt = 0; ; attempt++)); do
  ask_for
  status=0
  { prepare && on_all "$command"; } || status=$?
  if dry || ((status == 0)); then exit "$status"; fi
  # 143: stopped by SIGTERM, 75: a host was lost; ssh itself ends with 255.
  now=$(state)
  if ((attempt >= restarts)) || [[ -z ${TPU_TYPE:-} ]]; then exit "$status"; fi
  if [[ $now != READY ]]; then
    say "$TPU_NAME is ${now:-gone}: it is asked for again."
    give_back || true
  elif ((status != 143 && status != 75 && status != 137 && status != 255)); then
    exit "$status"
  fi
  say "status $status: goes on from the last checkpoint."
  sleep "${WAIT_SECONDS:-10}"
done
