#!/usr/bin/env bash
# Train on several devices: bash scripts/run_distribute_train.sh DEVICE_NUM CONFIG DATA_PATH [train.py flags...]
# DEVICE_NUM is the number of devices on this node. Environment variables: DEVICE_TARGET is CPU, GPU or Ascend; NNODES,
# NODE_RANK, MASTER_ADDR and MASTER_PORT connect several nodes, where no cluster does so (docs/clusters.md); LOG_DIR and
# MAX_RESTARTS are explained in msg_ms/launch/__main__.py. PYTHON is the interpreter.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python}" -m msg_ms.launch train.py "$@"
