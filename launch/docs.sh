#!/usr/bin/env bash
# Builds the documentation with its API reference into site/. Installs what it needs.
#
#   launch/docs.sh [MKDOCS ARGS...]
#
#   launch/docs.sh            # site/index.html
#   launch/docs.sh serve      # shows it at http://localhost:8000 and follows changes
#
# A broken link ends the build. DRY_RUN=1 prints the command.
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

dry || install docs docs
cd -- "$repo"
if (($# == 0)); then set -- build --strict; fi
# mkdocs-material announces other projects at each start; the version is pinned here.
export DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1
run exec "$venv/bin/python" -m mkdocs "$@"
