#!/usr/bin/env bash
# Makes the tables and pictures of README and docs again, part by part.
#
#   launch/evidence.sh OUT [PART...]     # all parts, or those that are named
#   launch/evidence.sh --list            # what there is
#
# Each part works in OUT/<part> and is left out when it has been made at this commit;
# what a kill cuts goes on where it was. OUT/evidence.jsonl gets a line for each part that
# was made: command, commit, seconds, machine. Parts on real scans need HIPPOCAMPUS and
# SCD, the folders of these data sets. DRY_RUN=1 prints the commands.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

if [[ ${1:-} == -h || ${1:-} == --help || $# == 0 ]]; then
  usage "${BASH_SOURCE[0]}"
  [[ $# == 0 ]] && exit 2
  exit 0
fi

py="$venv/bin/python"
sweep="$py $repo/launch/sweep.py"
public='--config.data.private.layout= --config.sample.model=diffusion'

commands() { # Prints the commands of a part, one a line; $1 is the part, $2 its folder.
  case $1 in
    quickstart)
      echo "$repo/launch/local.sh $repo/configs/cardiac.py:tiny $2"
      echo "$py $repo/docs/quickstart.py $2 $repo/docs/quickstart.png"
      echo "$py $repo/benchmarks/run_summary.py $2 --out=$2/summary.json"
      ;;
    public_model)
      echo "$repo/launch/local.sh $repo/configs/cardiac.py:tiny $2 $public"
      ;;
    small) echo "$sweep $repo/configs/cardiac.py:small $2" ;;
    recipe) echo "$sweep $repo/configs/cardiac.py:tiny $2 --group=recipe" ;;
    quality) echo "$py $repo/benchmarks/quality.py --out=$2" ;;
    quality_x3) echo "$py $repo/benchmarks/quality.py --times=3 --out=$2" ;;
    brain)
      echo "$repo/launch/local.sh $repo/configs/brain.py:tiny,effect=ventricles_ml $2 $public"
      echo "$py $repo/docs/quickstart.py $2 $repo/docs/recipe-brain.png"
      ;;
    chest) echo "$repo/launch/local.sh $repo/configs/chest.py:tiny $2" ;;
    drift_brain) echo "$sweep $repo/configs/brain.py:tiny $2 --group=drift" ;;
    drift_chest) echo "$sweep $repo/configs/chest.py:tiny $2 --group=drift" ;;
    private_drift) echo "$sweep $repo/configs/chest.py:tiny $2 --group=private_drift" ;;
    noise) echo "$sweep $repo/configs/chest.py:small $2 --group=noise" ;;
    utility)
      echo "$sweep $repo/configs/cardiac.py:small $2 --group=utility"
      ;;
    hippocampus)
      echo "$repo/launch/local.sh $repo/configs/hippocampus.py:tiny,root=${HIPPOCAMPUS:-} $2"
      ;;
    sunnybrook)
      echo "$repo/launch/local.sh $repo/configs/cardiac.py:tiny,data=scd,root=${SCD:-} $2"
      ;;
    benchmarks)
      echo "$py $repo/benchmarks/model_step.py --repeats=3"
      echo "$py $repo/benchmarks/sampling.py --repeats=3"
      echo "$py $repo/benchmarks/dp_step.py --repeats=3"
      ;;
    *) return 1 ;;
  esac
}

parts=(quickstart public_model small recipe quality quality_x3 brain chest drift_brain
  drift_chest private_drift noise utility hippocampus sunnybrook benchmarks)

if [[ $1 == --list ]]; then
  printf '%s\n' "${parts[@]}"
  exit 0
fi
out=$1
shift
(($#)) || set -- "${parts[@]}"
for part in "$@"; do
  commands "$part" '' > /dev/null ||
    fail "There is no part $part; expected some of: ${parts[*]}"
done

commit=$(git -C "$repo" rev-parse --short HEAD 2> /dev/null || echo unknown)
machine="$(uname -m), $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo |
  cut -d: -f2 | xargs || true)"
dry || install "run" ''
for part in "$@"; do
  folder="$out/$part"
  if [[ $part == hippocampus && -z ${HIPPOCAMPUS:-} ]] ||
    [[ $part == sunnybrook && -z ${SCD:-} ]]; then
    say "$part is left out: its folder of scans is not given."
    continue
  fi
  if [[ $(cat "$folder/made-at" 2> /dev/null) == "$commit" ]]; then
    say "$part was made at $commit."
    continue
  fi
  dry || mkdir -p -- "$folder"
  began=$SECONDS
  lines=()
  mapfile -t lines < <(commands "$part" "$folder")
  for line in "${lines[@]}"; do
    read -r -a words <<< "$line"
    if dry; then
      run "${words[@]}"
    else
      "${words[@]}" | tee -a "$folder/output.txt"
    fi
  done
  dry && continue
  "$py" -c 'import json, sys; print(json.dumps(dict(zip(
    ("part", "commands", "commit", "machine", "seconds"),
    (sys.argv[1], sys.argv[5:], *sys.argv[2:4], int(sys.argv[4]))))))' \
    "$part" "$commit" "$machine" "$((SECONDS - began))" "${lines[@]}" \
    >> "$out/evidence.jsonl"
  printf '%s\n' "$commit" > "$folder/made-at"
done
