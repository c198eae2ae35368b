#!/usr/bin/env bash
# Install, train and evaluate a small model; needs only Python: bash scripts/quickstart.sh [classification|detection]
#
# classification (the default) trains configs/digits_p4_win4_64.yaml on scikit-learn's handwritten digits, detection
# trains configs/coco/digits_scenes.yaml on scenes of them, on CPU, in minutes. All output is in demo/. An interrupted
# run resumes when the script is run again. Remove demo/ to start from scratch.
set -euo pipefail

TASK=${1:-classification}
case "$TASK" in
    classification)
        CONFIG=configs/digits_p4_win4_64.yaml
        DATA=demo/digits
        RUN=demo/digits_p4_win4_64/default
        ;;
    detection)
        CONFIG=configs/coco/digits_scenes.yaml
        DATA=demo/scenes
        RUN=demo/digits_scenes/default
        ;;
    *)
        echo "usage: bash scripts/quickstart.sh [classification|detection]" >&2
        exit 2
        ;;
esac
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"
cd "$ROOT"

step() { printf '\n== %s\n' "$*"; }

if [ "$TASK" = detection ]; then
    step "1/5 Data: scenes of handwritten digits as a COCO data set"
    "$PYTHON" tools/make_scenes.py "$DATA"
    EVALUATION=(--results demo/detections.json --per-class)
    IMAGES=("$DATA"/val2017/00000*.png)
    PREDICTION=()
else
    step "1/5 Data: handwritten digits as image folders"
    "$PYTHON" tools/make_digits.py "$DATA"
    EVALUATION=()
    IMAGES=("$DATA"/val/{0,2,4,6,8}/000*.png)
    PREDICTION=(--classes "$DATA/val")
fi

step "2/5 Training"
"$PYTHON" train.py --cfg "$CONFIG" --data-path "$DATA" --output demo --device-target CPU

step "3/5 Evaluating the best checkpoint"
"$PYTHON" eval.py --cfg "$CONFIG" --data-path "$DATA" --resume "$RUN/best.ckpt" --device-target CPU \
    --report "demo/report_$TASK" ${EVALUATION[@]+"${EVALUATION[@]}"} | tee "demo/evaluation_$TASK.txt"

step "4/5 Training curves"
"$PYTHON" tools/plot_run.py "$RUN"

step "5/5 Predicting a few images"
"$PYTHON" tools/predict.py --cfg "$CONFIG" --resume "$RUN/best.ckpt" --device-target CPU \
    ${PREDICTION[@]+"${PREDICTION[@]}"} --picture "demo/predictions_$TASK.png" "${IMAGES[@]}"

step "Done"
cat <<DONE
A small model learned ten handwritten digits: $(head -n 1 "demo/evaluation_$TASK.txt" | sed 's/^[^:]*: //').
  data            $DATA/
  checkpoints     $RUN/best.ckpt, $RUN/ckpt_*.ckpt
  configuration   $RUN/config.yaml
  log, metrics    $RUN/log_rank0.txt, $RUN/metrics.jsonl
  curves          $RUN/curves.png
  evaluation      demo/evaluation_$TASK.txt
  report          demo/report_$TASK/report.html
  predictions     demo/predictions_$TASK.png
DONE
if [ "$TASK" = detection ]; then
    echo "Next: python train.py --cfg configs/coco/cascade_mask_rcnn_msg_tiny.yaml --data-path <coco>, see docs/detection.md."
else
    echo "Next: python train.py --cfg configs/msg_tiny_p4_win7_224.yaml --data-path <imagenet>, see README.md."
fi
