#!/usr/bin/env bash
# Run the core tests on several MindSpore versions: bash scripts/run_version_matrix.sh [VERSION...]
# Each version has its environment in .venv-matrix/<version> (about 2 GB). Takes about ten minutes per version;
# not part of CI.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
[ $# -gt 0 ] || set -- 2.7.2 2.8.0 2.9.0 2.10.0
CORE=(tests/models tests/ops tests/checkpoint tests/convert tests/engine)
status=0
for version in "$@"; do
    python=.venv-matrix/$version/bin/python
    if [ ! -e ".venv-matrix/$version/installed" ]; then
        "${MSG_MS_PYTHON:-python3}" -m venv ".venv-matrix/$version"
        "$python" -m pip install --quiet --disable-pip-version-check "mindspore==$version" -e "${ROOT}[dev]"
        touch ".venv-matrix/$version/installed"
    fi
    log=.venv-matrix/$version.log
    result=$("$python" -m pytest "${CORE[@]}" -p no:cacheprovider 2>&1 | tee "$log" | tail -n 1) || status=1
    echo "MindSpore $version: $result"
done
exit $status
