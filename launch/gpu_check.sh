#!/usr/bin/env bash
# Ten minutes on one GPU: trains, fine-tunes privately and samples a short
# configs/cardiac.py:full (13 x 96 x 96, products in bfloat16) on phantoms, and prints
# where the time went.
#
#   launch/gpu_check.sh [WORKDIR [FLAGS...]]
#
# Leaves WORKDIR/gpu_check.json (seconds by stage, examples a second, share of the peak
# rate, private over plain step), the report, and WORKDIR/samples.png. PEAK_TFLOPS is the
# peak of bfloat16 (default 989, an H200's without sparsity). DRY_RUN=1 prints the
# commands. Nothing is kept of a step that fails; the same command goes on.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

workdir=${1:-$repo/runs/gpu-check}
if (($# > 1)); then shift; else set --; fi
patients() { printf -- '--config.data.%s.options.num_patients=%s' "$1" "$2"; }

run env "EXTRAS=${EXTRAS:-cuda}" "$repo/launch/local.sh" configs/cardiac.py:full \
  "$workdir" "$(patients public 300)" "$(patients private 300)" \
  "$(patients test 60)" --config.diffusion.model.dtype=bfloat16 \
  --config.autoencoder.steps=1200 --config.autoencoder.batch_size=16 \
  --config.diffusion.steps=1500 --config.adapt.steps=20 \
  --config.adapt.privacy.batch_size=64 --config.adapt.privacy.chunk_size=32 \
  --config.sample.num=60 --config.sample.steps=25 --config.counterfactual.num=0 \
  --config.evaluate.segmenter.steps=300 "$@"
run "$venv/bin/python" "$repo/benchmarks/run_summary.py" "$workdir" \
  "--peak_tflops=${PEAK_TFLOPS:-989}" "--out=$workdir/gpu_check.json"
run "$venv/bin/python" "$repo/docs/quickstart.py" "$workdir" "$workdir/samples.png"
run "$venv/bin/python" "$repo/benchmarks/dp_step.py" --only=ours --device=cuda
