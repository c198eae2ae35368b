#!/usr/bin/env bash
# Check and test everything: bash scripts/run_tests.sh [pytest flags...]
# Makes .venv if it is missing; takes minutes on two cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
