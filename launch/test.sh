#!/usr/bin/env bash
# Runs the tests. Makes .venv and installs the package with its test tools, if need be.
#
#   launch/test.sh [--fast] [PYTEST ARGS...]
#
#   launch/test.sh                          # all
#   launch/test.sh --fast                   # no pipeline, no large network: 2 minutes
#   launch/test.sh tests/diffusion -k ddim  # some
#
# Comparisons with torch are skipped where torch cannot be installed; tests on real
# scans where LDM_JAX_REAL_DATA names no folder. TEST_WORKERS processes (2) share the
# tests; 0 runs them in one. DRY_RUN=1 prints the command.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

dry || install test dev interop
cd -- "$repo"
run exec "$venv/bin/python" -m pytest -n "${TEST_WORKERS:-2}" --dist worksteal "$@"
