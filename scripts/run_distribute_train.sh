#!/usr/bin/env bash
# Train on several devices: bash scripts/run_distribute_train.sh DEVICE_NUM CONFIG DATA_PATH [train.py flags...]
# DEVICE_NUM is the number of devices on this node. DEVICE_TARGET chooses CPU, GPU or Ascend; NNODES, NODE_RANK, MASTER_ADDR
# and MASTER_PORT join nodes; LOG_DIR and MAX_RESTARTS as in msg_ms/launch.py. PYTHON chooses the interpreter.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m msg_ms.launch train.py "$@"
