#!/usr/bin/env bash
# Evaluate on one device: bash scripts/run_eval.sh CONFIG DATA_PATH CHECKPOINT [eval.py flags...]
# DEVICE_TARGET is CPU, GPU or Ascend (default: MindSpore's choice). PYTHON is the interpreter.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 CONFIG DATA_PATH CHECKPOINT [eval.py flags...]" >&2; exit 2; }
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
config=$1 data=$2 checkpoint=$3
shift 3
exec "${PYTHON:-python}" "$ROOT/eval.py" --cfg "$config" --data-path "$data" --resume "$checkpoint" \
    ${DEVICE_TARGET:+--device-target "$DEVICE_TARGET"} "$@"
