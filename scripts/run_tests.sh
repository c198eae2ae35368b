#!/usr/bin/env bash
# Run ruff, clang-format, mypy, codespell and all tests: bash scripts/run_tests.sh [pytest flags...]
# Creates .venv if it is missing. Takes minutes on two cores.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
find msg_ms tests \( -name '*.cc' -o -name '*.h' \) -exec "$VENV/bin/clang-format" --dry-run --Werror {} +
"$PYTHON" -m mypy
"$VENV/bin/codespell"
# A file stays in one process: its fixtures train models. A process needs up to 4 GB. The last flag of a kind wins.
exec "$PYTHON" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
