# Shared by the launch scripts, which source it: finds Python, makes .venv, installs.
# shellcheck shell=bash

repo=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv="$repo/.venv"

say() { printf 'launch: %s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 2
}

usage() { # Prints the comment at the head of a script.
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$1"
}

dry() { [[ ${DRY_RUN:-0} == 1 ]]; }

run() { # Runs a command; with DRY_RUN=1 prints it, quoted for a shell, and does nothing.
  if dry; then
    [[ $1 == exec ]] && shift
    printf '%q' "$1"
    printf ' %q' "${@:2}"
    printf '\n'
  else
    "$@"
  fi
}

find_python() { # Prints the interpreter to use. A pyenv shim may exist and not run.
  local name
  for name in "${PYTHON:-python3.13}" python3.12 python3.11 python3 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
      printf '%s\n' "$name"
      return
    fi
    [[ -z ${PYTHON:-} ]] || fail "PYTHON=$PYTHON does not run or is older than 3.11."
  done
  fail 'No Python 3.11 or newer was found. Install one, or set PYTHON to its path.'
}

make_venv() { # Debian without python3-venv has no ensurepip; the outer pip helps out.
  local python
  python=$(find_python)
  say "making $venv with $("$python" --version)"
  rm -rf -- "$venv"
  mkdir -- "$venv" && touch "$venv/.incomplete"
  if "$python" -m venv "$venv" > /dev/null 2>&1; then return; fi
  "$python" -m venv --without-pip "$venv" || true
  "$python" -m pip --python "$venv/bin/python" install --quiet pip || true
  venv_runs || fail "$python can make no virtual environment: it has neither" \
    'ensurepip nor pip (Debian, Ubuntu: apt install python3-venv). Or set PYTHON.'
}

venv_runs() { "$venv/bin/python" -I -m pip --version > /dev/null 2>&1; }

pip_install() { # Quiet but for errors.
  (cd -- "$repo" && PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install -qq "$@")
}

# install NAME EXTRAS [OPTIONAL_EXTRAS]: the package with its extras, in place, once for
# each content of setup.py and pyproject.toml. The file .incomplete stays behind when a
# kill leaves packages half-written; such an environment is made anew.
install() {
  local stamp="$venv/.installed-$1" wanted
  wanted="$repo $(cat -- "$repo/setup.py" "$repo/pyproject.toml" | cksum)"
  if command -v flock > /dev/null; then # one installation at a time
    exec 9< "$repo/setup.py"
    flock 9
  fi
  if [[ -e $venv/.incomplete ]] || ! venv_runs; then make_venv; fi
  if [[ ! -f $stamp || $(< "$stamp") != "$wanted" ]]; then
    say 'installing the package (minutes the first time)'
    touch "$venv/.incomplete"
    if ! pip_install -e ".${2:+[$2]}"; then
      rm -f -- "$venv/.incomplete" # pip ended by itself and left nothing half-written
      fail "pip could not install the package; its message stands above."
    fi
    if [[ -n ${3:-} ]] && ! pip_install -e ".[$2,$3]"; then
      say "the extra $3 cannot be had here; the tests that need it are skipped." \
        "Remove $stamp to try again."
    fi
    printf '%s\n' "$wanted" > "$stamp"
    rm -f -- "$venv/.incomplete"
  fi
  exec 9<&-
}
