#!/usr/bin/env bash
# Run ruff and all tests: bash scripts/run_tests.sh [pytest flags...]
# Creates .venv if it is missing. Takes minutes on two cores.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
