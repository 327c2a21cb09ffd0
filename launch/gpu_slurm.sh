#!/usr/bin/env bash
# Runs an experiment as a Slurm job on the GPUs of one or several nodes.
#
#   PARTITION=gpu launch/gpu_slurm.sh [CONFIG[:ARGS] [WORKDIR [FLAGS...]]]
#   PARTITION=gpu NODES=4 GPUS=8 launch/gpu_slurm.sh configs/cardiac.py:full /shared/w
#
# NODES=1 nodes with GPUS=1 GPUs each; one task runs on each GPU (TASKS=gpu) or on each
# node with all its GPUs (TASKS=node). GPUS=0 runs one task a node on its CPUs. WORKDIR,
# the scans and this repository must be seen by all nodes. CPUS=8 a task, MEM=64G a node.
#
# Submits itself; further options of sbatch by its own variables (SBATCH_TIMELIMIT,
# SBATCH_ACCOUNT, ...) or in the #SBATCH lines. Two minutes before the time limit, and
# when the job is preempted, training saves its state; the job is then requeued and goes
# on, after the loss of a task at most RESTARTS=20 times. So does a job that is submitted
# again. `scancel --batch --signal=TERM JOB` does it by hand. DRY_RUN=1 prints the command.
# OPTIONS='...': further words for sbatch. TOOL=sweep.py: runs that script of launch/ on
# the job's first node instead, which starts the tasks of an arm (launch/sweep.py).
#
#SBATCH --job-name=ldm-jax
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
set -euo pipefail

if [[ -n ${SLURM_JOB_ID:-} && -n ${LDM_JAX_REPO:-} ]]; then
  # Inside the job this file is a copy in Slurm's spool: the repository is named.
  # shellcheck source=common.sh
  . "$LDM_JAX_REPO/launch/common.sh"
  export EXTRAS=${EXTRAS-cuda}
  starter=()
  if ((${SLURM_NTASKS:-1} > 1)); then
    starter=(srun --kill-on-bad-exit=1 --wait=60)
    # Once, on this node: every task would install at the same time.
    dry || INSTALL_ONLY=1 "$LDM_JAX_REPO/launch/local.sh" > /dev/null
    # A task sees all GPUs of its node; jax takes the one of the task's number there,
    # unless it is told that all are its own.
    if [[ ${LDM_JAX_TASKS:-gpu} == node && -n ${LDM_JAX_GPUS:-} ]]; then
      JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((LDM_JAX_GPUS - 1)))
      export JAX_LOCAL_DEVICE_IDS
    fi
  fi
  if [[ -n ${LDM_JAX_TOOL:-} ]]; then
    dry || INSTALL_ONLY=1 "$LDM_JAX_REPO/launch/local.sh" > /dev/null
    export LDM_JAX_START="${starter[*]}" # before each run that the tool starts
    command=("$LDM_JAX_REPO/.venv/bin/python" "$LDM_JAX_REPO/launch/$LDM_JAX_TOOL" "$@")
  else
    command=("${starter[@]}" "$LDM_JAX_REPO/launch/local.sh" "$@")
  fi
  if dry; then
    ((${SLURM_NTASKS:-1} > 1)) || [[ -n ${LDM_JAX_TOOL:-} ]] || exec "${command[@]}"
    run "${command[@]}"
    exit
  fi
  # The signal comes to this shell, which hands it on and waits for the checkpoint. srun
  # would kill its tasks instead of handing it on: Slurm signals them.
  "${command[@]}" &
  child=$!
  if ((${#starter[@]})); then
    trap 'scancel --signal=TERM "$SLURM_JOB_ID" || true' TERM
  else
    trap 'kill -TERM "$child" 2> /dev/null || true' TERM
  fi
  status=0
  wait "$child" || status=$?
  # `wait` returns when the trap has run: the child may still be saving.
  while kill -0 "$child" 2> /dev/null; do
    status=0
    wait "$child" || status=$?
  done
  # 143: stopped by a signal, 75: a task was lost, 137: killed. The same goes on.
  if [[ $status == 75 || $status == 137 ]] &&
    ((${SLURM_RESTART_COUNT:-0} >= ${RESTARTS:-20})); then
    say "status $status after $SLURM_RESTART_COUNT restarts: the job ends."
  elif [[ $status == 143 || $status == 75 || $status == 137 ]]; then
    say "status $status: the job is requeued and goes on from its last checkpoint."
    scontrol requeue "$SLURM_JOB_ID" || true
  fi
  exit "$status"
fi

. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
: "${PARTITION:?set PARTITION to a Slurm partition with GPUs, such as PARTITION=gpu}"
nodes=${NODES:-1} gpus=${GPUS:-1} tasks=${TASKS:-gpu}
for name in nodes gpus; do
  [[ ${!name} =~ ^[0-9]+$ ]] || fail "${name^^}=${!name}; expected a number."
done
[[ $tasks == gpu || $tasks == node ]] || fail "TASKS=$tasks; expected gpu or node."
((nodes > 0)) || fail "NODES=$nodes; expected at least 1."
per_node=1
options=("--nodes=$nodes" "--cpus-per-task=${CPUS:-8}" "--mem=${MEM:-64G}")
if ((gpus > 0)); then
  options+=("--gpus-per-node=$gpus")
  [[ $tasks == gpu ]] && per_node=$gpus
  # One task alone uses all GPUs of its node.
  ((nodes == 1 && gpus == 1)) && per_node=1
fi
options+=("--ntasks-per-node=$per_node")
export LDM_JAX_REPO=$repo LDM_JAX_TASKS=$tasks LDM_JAX_GPUS=$gpus
((gpus > 0)) || export LDM_JAX_GPUS='' EXTRAS="${EXTRAS-}"
export LDM_JAX_TOOL=${TOOL:-}
if [[ -n ${OPTIONS:-} ]]; then
  read -r -a further <<< "$OPTIONS"
  options+=("${further[@]}")
fi
run sbatch "--partition=$PARTITION" --export=ALL "${options[@]}" \
  "$repo/launch/gpu_slurm.sh" "$@"
