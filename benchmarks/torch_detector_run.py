"""Train a detector in PyTorch with a configuration of this project, with the flags of train.py.

    python benchmarks/torch_detector_run.py --cfg configs/coco/digits_scenes.yaml --data-path demo/scenes --output out

The model, its losses and the optimizer are PyTorch's: ``torch_detector_training``. The first weights, the batches and
the learning rates are those of train.py with the same seed. After each epoch the weights are evaluated by this package,
whose detections are PyTorch's, and the metrics are written to ``metrics.jsonl`` in the run's folder.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from mindspore import Tensor
from torch_detector import TorchDetector
from torch_detector_training import Trainer, decay_groups, load

from msg_ms.boxes.batches import DetectionBatch
from msg_ms.checkpoint import parameters_by_name
from msg_ms.cli import config_from_arguments, require, run_command_line, train_parser
from msg_ms.config import Config
from msg_ms.convert import convert_state_dict, export_state_dict
from msg_ms.convert.detection_rules import DETECTION_RULES
from msg_ms.engine.evaluate import Evaluation
from msg_ms.engine.runtime import start
from msg_ms.engine.schedule import build_schedule
from msg_ms.errors import UserError
from msg_ms.models.build import backbone_arguments
from msg_ms.models.detection.cascade_rcnn import CascadeMaskRCNN
from msg_ms.tasks import build_task


def main() -> None:
    asked = config_from_arguments(train_parser().parse_args())
    require(asked.data.data_path, "--data-path")
    check(asked)
    runtime = start(asked, build_task)
    config, task = runtime.config, runtime.task
    model = task.build_model()
    values = {p.name: p.asnumpy() for p in model.get_parameters()}
    detector = TorchDetector(backbone_arguments(config.model), model.settings).train()
    state = export_state_dict(values, buffers=False, rules=DETECTION_RULES)
    load(detector, {name: torch.from_numpy(value) for name, value in state.items()})
    data = task.train_data(runtime.shard, runtime.workers)
    schedule = build_schedule(config.train, data.steps, config.data.batch_size)
    optimizer = torch.optim.AdamW(
        decay_groups(detector, config.train.weight_decay),
        betas=config.train.optimizer.betas,
        eps=config.train.optimizer.eps,
    )
    trainer, evaluation = Trainer(detector), Evaluation.of_run(runtime, model)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    lines, total = [], 0.0
    for step, batch in enumerate(data.batches(0, config.train.epochs)):
        total += train_step(trainer, optimizer, by_name(batch), schedule.at_step(step), config.train.clip_grad)
        if (step + 1) % data.steps:
            continue
        set_weights(model, detector)
        metrics = evaluation.run()
        assert metrics is not None
        lines.append({"epoch": len(lines) + 1, "train_loss": total / data.steps, **metrics.values})
        print(f"epoch {len(lines)}/{config.train.epochs}: loss {total / data.steps:.4f}, {metrics}", flush=True)
        total = 0.0
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (config.run_dir / "metrics.jsonl").write_text(text, "utf-8")


def check(config: Config) -> None:
    """Raise UserError if the configuration asks for what this program does not have."""
    train = config.train
    absent = {
        "MODEL.DROP_PATH_RATE": config.model.drop_path_rate,
        "MODEL.DROP_RATE": config.model.drop_rate,
        "TRAIN.ACCUMULATION_STEPS": train.accumulation_steps > 1,
        "TRAIN.EMA_DECAY": train.ema_decay,
        "TRAIN.FREEZE": train.freeze,
    }
    for key, value in absent.items():
        if value:
            raise UserError(f"{key}={value}: PyTorch's side trains without it")


def by_name(batch: DetectionBatch) -> dict[str, torch.Tensor]:
    """Return a batch under the names that ``Trainer`` reads."""
    arrays = {"images": batch.images, "img_shapes": batch.img_shapes, "gt": batch.gt.boxes}
    arrays |= {f"gt_{name}": getattr(batch.gt, name) for name in ("labels", "valid", "masks", "frames")}
    arrays |= {f"rpn_{name}": value for name, value in batch.rpn._asdict().items()}
    arrays |= {f"draws{stage}": value for stage, value in enumerate(batch.draws)}
    return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items() if value is not None}


def train_step(trainer: Trainer, optimizer: torch.optim.AdamW, batch: dict, rate: float, clip: float) -> float:
    """Train on a batch and return the loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = sum(trainer.losses(batch))
    optimizer.zero_grad()
    loss.backward()
    if clip > 0:
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), clip)
    optimizer.step()
    return loss.item()


def set_weights(model: CascadeMaskRCNN, detector: TorchDetector) -> None:
    """Set this package's model to PyTorch's weights and statistics."""
    state = {name: value.numpy() for name, value in detector.state_dict().items()}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    values = convert_state_dict(state, rules=DETECTION_RULES)
    for name, parameter in parameters_by_name(model.get_parameters()).items():
        parameter.set_data(Tensor(values[name]))


if __name__ == "__main__":
    run_command_line(main)
