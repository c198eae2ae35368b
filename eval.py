"""Evaluate a checkpoint: python eval.py --cfg F --data-path D --resume X.ckpt."""

from __future__ import annotations

import sys
from pathlib import Path

from msg_ms.checkpoint import load_for_inference
from msg_ms.cli import config_from_arguments, config_parser, require, run_command_line
from msg_ms.data import EvalDataset, Shard, load_folders
from msg_ms.engine import compile_cache
from msg_ms.engine.device import check_half_precision, check_same_job, clamp_workers, setup_device
from msg_ms.engine.evaluate import EvalStep, evaluate
from msg_ms.engine.log import progress
from msg_ms.models.build import build_model
from msg_ms.models.inference import optimize_for_inference
from msg_ms.models.precision import set_precision
from msg_ms.support import check_supported


def main() -> None:
    config = config_from_arguments(config_parser("Evaluate a checkpoint on the images under val/.").parse_args())
    check_supported(config)
    checkpoint = Path(require(config.model.resume, "--resume"))
    require(config.data.data_path, "--data-path")
    _, ranks = setup_device(config.device_target, config.seed, config.jit_level)
    check_half_precision(config.amp_level, config.amp.dtype)
    _, folder = load_folders(config.data, config.model.num_classes, training=False)
    check_same_job(ranks, config, folder.files)
    compile_cache.enable(config, ranks)

    shard, workers = Shard(ranks.rank, ranks.world), clamp_workers(config.data.num_workers)
    data = EvalDataset(folder, config.data, config.test.crop, workers, shard)
    model = build_model(config.model, config.data.img_size)
    set_precision(model, config.amp_level, config.amp.dtype)
    lines, _ = load_for_inference(model, checkpoint)
    for line in lines if ranks.first else ():
        print(line, file=sys.stderr)
    optimize_for_inference(model)

    watched = progress(data.batches(), data.steps, "evaluate")
    step = EvalStep(model, config.model.num_classes)
    result = evaluate(step, (batch for batch, _ in watched), config.data.batch_size, ranks)
    if ranks.first:
        print(f"{checkpoint}: {result}")


if __name__ == "__main__":
    run_command_line(main)
