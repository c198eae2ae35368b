#!/usr/bin/env bash
# Train on one device: bash scripts/run_standalone_train.sh CONFIG DATA_PATH [train.py flags...]
# DEVICE_TARGET is CPU, GPU or Ascend (default: MindSpore's choice). PYTHON is the interpreter.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 CONFIG DATA_PATH [train.py flags...]" >&2; exit 2; }
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=$1 data=$2
shift 2
exec "${PYTHON:-python}" "$ROOT/train.py" --cfg "$config" --data-path "$data" \
    ${DEVICE_TARGET:+--device-target "$DEVICE_TARGET"} "$@"
