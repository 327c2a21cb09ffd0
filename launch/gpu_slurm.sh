#!/usr/bin/env bash
# Runs an experiment as a Slurm job on the GPUs of one node.
#
#   PARTITION=gpu launch/gpu_slurm.sh [CONFIG[:ARGS] [WORKDIR [FLAGS...]]]
#
# Submits itself; edit the #SBATCH lines for your site, or set sbatch's own variables
# (SBATCH_TIMELIMIT, SBATCH_ACCOUNT, ...). A requeued or repeated job resumes. CONFIG and
# WORKDIR as for launch/local.sh. DRY_RUN=1 prints the command.
#
#SBATCH --job-name=ldm-jax
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

one_task='One process on one node only so far: keep --nodes=1 and --ntasks=1,'
one_task+=' and ask for more GPUs with --gpus-per-node.'

if [[ -n ${SLURM_JOB_ID:-} && -n ${LDM_JAX_REPO:-} ]]; then
  # Inside the job this file is a copy in Slurm's spool: the repository is named.
  # shellcheck source=common.sh
  . "$LDM_JAX_REPO/launch/common.sh"
  if ((${SLURM_JOB_NUM_NODES:-1} > 1 || ${SLURM_NTASKS:-1} > 1)); then
    fail "$one_task This job has ${SLURM_JOB_NUM_NODES:-1} node(s)" \
      "and ${SLURM_NTASKS:-1} task(s)."
  fi
  EXTRAS=cuda exec "$LDM_JAX_REPO/launch/local.sh" "$@"
fi

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
: "${PARTITION:?set PARTITION to a Slurm partition with GPUs, such as PARTITION=gpu}"
several='^#SBATCH +(-N|-n|--nodes|--ntasks|--ntasks-per-node)[ =]*([2-9]|1[0-9]|1-)'
line=$(grep -E -m 1 -- "$several" "${BASH_SOURCE[0]}") && fail "$one_task Change: $line"
export LDM_JAX_REPO=$repo
run sbatch "--partition=$PARTITION" --export=ALL "$repo/launch/gpu_slurm.sh" "$@"
