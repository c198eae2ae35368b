#!/usr/bin/env bash
# Install, train and evaluate a small MSG-Transformer; needs only Python: bash scripts/quickstart.sh
#
# Trains configs/digits_p4_win4_64.yaml on scikit-learn's handwritten digits, on CPU, in minutes. All output is in
# demo/. An interrupted run resumes when the script is run again. Remove demo/ to start from scratch.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$ROOT"

CONFIG=configs/digits_p4_win4_64.yaml
DATA=demo/digits
RUN=demo/digits_p4_win4_64/default

step() { printf '\n== %s\n' "$*"; }

step "1/5 Data: handwritten digits as image folders"
"$PYTHON" tools/make_digits.py "$DATA"

step "2/5 Training"
"$PYTHON" train.py --cfg "$CONFIG" --data-path "$DATA" --output demo --device-target CPU

step "3/5 Evaluating the best checkpoint"
"$PYTHON" eval.py --cfg "$CONFIG" --data-path "$DATA" --resume "$RUN/best.ckpt" --device-target CPU \
    | tee demo/evaluation.txt

step "4/5 Training curves"
"$PYTHON" tools/plot_run.py "$RUN"

step "5/5 Predicting a few images"
"$PYTHON" tools/predict.py --cfg "$CONFIG" --resume "$RUN/best.ckpt" --classes "$DATA/val" --device-target CPU \
    --picture demo/predictions.png "$DATA"/val/{0,2,4,6,8}/000*.png

step "Done"
cat <<EOF
A small MSG-Transformer learned ten handwritten digits: $(sed 's/^[^:]*: //' demo/evaluation.txt).
  data            $DATA/
  checkpoints     $RUN/best.ckpt, $RUN/ckpt_*.ckpt
  configuration   $RUN/config.yaml
  log, metrics    $RUN/log_rank0.txt, $RUN/metrics.jsonl
  curves          $RUN/curves.png
  predictions     demo/predictions.png
Next: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>, see README.md.
EOF
