#!/usr/bin/env bash
# The API reference as HTML, out of the docstrings: bash scripts/build_docs.sh [FOLDER], build/api unless named.
# Needs pip install -e '.[docs]'. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
"$PYTHON" -c 'import pdoc' 2>/dev/null || { echo "error: pdoc is missing: pip install -e '.[docs]'" >&2; exit 2; }
# Every module by its name, as pdoc itself follows a package's __all__, which has no modules.
modules=$(find msg_ms -name '*.py' | sed -e 's|/__init__\.py$||' -e 's|\.py$||' -e 's|/|.|g' | LC_ALL=C sort)
# A function named as its module is found twice, which pdoc warns of.
# shellcheck disable=SC2086
exec "$PYTHON" -W "ignore:The module specification" -m pdoc --docformat restructuredtext --no-show-source -o "${1:-build/api}" $modules
