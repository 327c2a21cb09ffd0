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

if [[ -n ${SLURM_JOB_ID:-} && -n ${LDM_JAX_REPO:-} ]]; then
  # Inside the job this file is a copy in Slurm's spool: the repository is named.
  EXTRAS=cuda exec "$LDM_JAX_REPO/launch/local.sh" "$@"
fi

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
: "${PARTITION:?set PARTITION to a Slurm partition with GPUs, such as PARTITION=gpu}"
export LDM_JAX_REPO=$repo
run sbatch "--partition=$PARTITION" --export=ALL "$repo/launch/gpu_slurm.sh" "$@"
