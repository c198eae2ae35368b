#!/usr/bin/env bash
# Run the suite's core on several MindSpore versions: bash scripts/run_version_matrix.sh [VERSION...]
# One environment each in .venv-matrix/<version> (about 2 GB); takes about ten minutes a version, and is not part of CI.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
[ $# -gt 0 ] || set -- 2.7.2 2.8.0 2.9.0 2.10.0
CORE="tests/models tests/ops tests/convert tests/engine"
status=0
for version in "$@"; do
    python=.venv-matrix/$version/bin/python
    if [ ! -e ".venv-matrix/$version/installed" ]; then
        "${MSG_MS_PYTHON:-python3}" -m venv ".venv-matrix/$version"
        "$python" -m pip install --quiet --disable-pip-version-check "mindspore==$version" -e "$ROOT[dev]"
        touch ".venv-matrix/$version/installed"
    fi
    result=$("$python" -m pytest $CORE -p no:cacheprovider 2>&1 | tee ".venv-matrix/$version.log" | tail -n 1) || status=1
    echo "MindSpore $version: $result"
done
exit $status
