#!/usr/bin/env bash
# Runs a whole experiment on this machine. Makes .venv and installs first, if need be.
#
#   launch/local.sh [CONFIG[:ARGS] [WORKDIR [FLAGS...]]]
#
#   launch/local.sh                                          # configs/cardiac.py:tiny
#   launch/local.sh configs/cardiac.py:small runs/small --config.adapt.steps=200
#   EXTRAS=cuda launch/local.sh configs/cardiac.py:full /scratch/cardiac
#
# CONFIG is looked for here and then in the repository; WORKDIR is where you are.
# DRY_RUN=1 prints the command. PYTHON=... names the interpreter (3.11 or newer) and
# EXTRAS=cuda or tpu the accelerator. The same command again resumes.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == -* ]]; then
  usage "${BASH_SOURCE[0]}"
  [[ $1 == -h || $1 == --help ]] && exit 0
  fail "CONFIG comes first, before flags like $1."
fi

if [[ ${INSTALL_ONLY:-0} == 1 ]]; then # before several processes are started
  dry || install "run${EXTRAS:+-$EXTRAS}" "${EXTRAS:-}"
  exit 0
fi

config=${1:-configs/cardiac.py:tiny}
file=${config%%:*}
if [[ ! -f $file ]]; then
  [[ $file != /* && -f $repo/$file ]] ||
    fail "There is no config $file, neither in $PWD nor in $repo; try configs/cardiac.py."
  config="$repo/$config"
fi

name=$(basename -- "$file" .py)${config#"${config%%:*}"}
workdir=${2:-$repo/runs/$(printf '%s' "$name" | tr -cs 'A-Za-z0-9_.' '-')}
if (($# > 2)); then shift 2; else set --; fi

dry || install "run${EXTRAS:+-$EXTRAS}" "${EXTRAS:-}"
if [[ -z ${EXTRAS:-} ]] && command -v nvidia-smi > /dev/null; then
  say 'an NVIDIA driver is here; EXTRAS=cuda installs jax for it.'
fi
run exec "$venv/bin/ldm-jax" "--config=$config" "--workdir=$workdir" "$@"
