#!/usr/bin/env bash
# Build the documentation site, English and Chinese (zh/): bash scripts/build_docs.sh [FOLDER], by default build/site.
# Needs pip install -e '.[docs]', but neither MindSpore nor a network. PYTHON chooses the interpreter.
set -euo pipefail
site=$(realpath -m "${1:-$(dirname "${BASH_SOURCE[0]}")/../build/site}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python}
"$PYTHON" -c 'import jieba, material, mkdocs_jupyter, mkdocstrings_handlers.python' 2>/dev/null \
    || { echo "error: jieba, mkdocs-material, mkdocs-jupyter or mkdocstrings is missing: pip install -e '.[docs]'" >&2; exit 2; }
# mkdocs-material prints an advertisement for a successor otherwise.
export NO_MKDOCS_2_WARNING=1
"$PYTHON" -m mkdocs build --strict --site-dir "$site"
"$PYTHON" -m mkdocs build --strict --config-file mkdocs.zh.yml --site-dir "$site/zh"
echo "Open $site/index.html. The search needs a server: $PYTHON -m http.server -d $site"
