#!/usr/bin/env bash
# Evaluate on several devices:
# bash scripts/run_distribute_eval.sh DEVICE_NUM CONFIG DATA_PATH CHECKPOINT [eval.py flags...]
# The environment variables are those of run_distribute_train.sh.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
[ $# -ge 4 ] || exec "${PYTHON:-python}" -m msg_ms.launch eval.py
devices=$1 config=$2 data=$3 checkpoint=$4
shift 4
exec "${PYTHON:-python}" -m msg_ms.launch eval.py "$devices" "$config" "$data" --resume "$checkpoint" "$@"
