"""Compare a detector's training step with PyTorch eager: python benchmarks/detector_step.py.

It needs Linux. PyTorch is skipped where it is not installed. A step is forward with the sampling of regions, all
losses, backward and AdamW, on one batch of generated scenes. Weights, images, ground truth and the samples' random
numbers are equal; the losses of the first step are compared before any result is printed. Each framework runs in a
process of its own, and their rounds alternate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from children import Child, answer, argument_parser, peak_mb, print_ratios, timed
from installed import installed
from models import BENCHMARK_DETECTORS, detector, detector_arguments
from rounds import cpu

from msg_ms.cli import run_command_line
from msg_ms.errors import UserError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

PEERS = ("msg_ms", "PyTorch eager")
TOLERANCE = 2e-3  # of a loss; rounding moves single samples and bins of masks
OBJECTS, SIDES = 8, (16, 100)  # of a scene, in pixels, below its sides: masks' crops are exact up to 112
RATE, WEIGHT_DECAY = 1e-4, 0.05


def main() -> None:
    parser = argument_parser(__doc__, (480, 640), list(BENCHMARK_DETECTORS))
    parser.add_argument("--batch", type=int, default=2)
    args = parser.parse_args()
    if args.child:
        return run_child(args)
    height, width = args.size
    with tempfile.TemporaryDirectory() as folder:
        data = prepare(Path(folder), args)
        peers = [Child(name, data, args, Path(__file__)) for name in installed(PEERS)]
        own, *others = (np.array(peer.receive("first")) for peer in peers)
        start = [peer.ask("peak_mb") for peer in peers]
        print(f"{args.model}, training step, {height} x {width}, batch {args.batch}, {args.threads} threads, {cpu()}")
        for other in others:
            compare_losses(own, other)
        for _ in range(args.rounds):
            for peer in peers:
                peer.seconds.append(peer.ask("step"))
        print_ratios(peers)
        memory = [max(pair) for pair in zip(start, [peer.ask("peak_mb") for peer in peers], strict=True)]
        print(f"peak memory: {memory[0]:.0f} MB")
        for other in memory[1:]:
            print(f"peak memory: {memory[0] / other:.2f} of PyTorch eager's ({other:.0f} MB)")


def compare_losses(own: np.ndarray, other: np.ndarray) -> None:
    """Print how far the losses of the first step differ; raise UserError if it is too far."""
    difference = (np.abs(own - other) / np.maximum(np.abs(other), 0.01)).max()
    if not difference < TOLERANCE:
        raise UserError(f"losses differ by {difference:.1e}: {own.round(4)} and {other.round(4)}; no timing")
    print(f"losses of the first step differ by at most {difference:.1e}")


def prepare(folder: Path, args) -> str:
    """Write a batch of scenes and weights, under the names of both frameworks."""
    from support.coco import write_split
    from support.detection_learning import names

    from msg_ms.config import DataConfig, DetectionConfig
    from msg_ms.convert import export_state_dict
    from msg_ms.convert.detection_rules import DETECTION_RULES
    from msg_ms.data.coco.split import for_training, read_split
    from msg_ms.data.detection import DetectionTrainDataset
    from msg_ms.data.pipeline import arrays_of
    from msg_ms.engine.device import setup_device

    setup_device("CPU", 0)
    write_split(folder, "train2017", *scenes(args.batch, args.size))
    height, width = args.size
    detection = DetectionConfig(short_sides=(height,), long_side=width, crop=0.0, canvases=((height, width),))
    data, settings = DataConfig(batch_size=args.batch), detector_arguments(args.model)[1]
    split = for_training(read_split(folder, "train2017", masks=settings.masks))
    counts = {"proposals": settings.train_proposals, "rois": settings.roi_samples, "masks": settings.masks}
    dataset = DetectionTrainDataset(split, data, detection, 0, 1, **counts)
    (batch,) = dataset.batches(0, 1)
    values = {p.name: p.asnumpy() for p in detector(args.model, drop_path_rate=0.0).get_parameters()}
    for name in values:
        if name.endswith(("rpn_cls.weight", "rpn_reg.weight")):
            values[name] *= 10  # proposals that differ
    arrays = {f"batch/{name}": array for name, array in zip(names(settings.masks), arrays_of(batch), strict=True)}
    arrays |= {f"own/{name}": value for name, value in values.items()}
    exported = export_state_dict(values, buffers=False, rules=DETECTION_RULES)
    arrays |= {f"state/{name}": value for name, value in exported.items()}
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def scenes(count: int, size: tuple[int, int]) -> tuple[dict, dict]:
    """Return the JSON content and the images of scenes: coloured triangles of many classes on noise."""
    from support.coco import square

    rng, (height, width) = np.random.default_rng(0), size
    images, annotations, pixels = [], [], {}
    for number in range(1, count + 1):
        scene = rng.integers(90, 160, (height, width, 3), np.uint8)
        for _ in range(OBJECTS):
            side = int(rng.integers(SIDES[0], min(SIDES[1], height, width)))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            ink = np.add.outer(np.arange(side), np.arange(side)) < side
            scene[y : y + side, x : x + side][ink] = rng.integers(0, 256, 3)
            annotations.append(square(len(annotations) + 1, number, x, y, side, int(rng.integers(1, 81))))
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        pixels[f"{number}.png"] = scene
    categories = [{"id": k, "name": f"class {k}"} for k in range(1, 81)]
    return {"images": images, "annotations": annotations, "categories": categories}, pixels


def run_child(args) -> None:
    prefixes = ("batch/", "own/" if args.child == PEERS[0] else "state/")
    with np.load(args.data) as file:
        data = {name: file[name] for name in file.files if name.startswith(prefixes)}
    step = {PEERS[0]: msg_ms_step, PEERS[1]: torch_step}[args.child](args, data)
    losses = step()
    step()  # every allocation is made
    answer(losses, {"step": lambda: timed(step), "peak_mb": peak_mb})


def msg_ms_step(args, data: dict) -> Callable[[], list[float]]:
    """Return a function that trains a step and returns the losses."""
    from mindspore import Tensor
    from support.detection_learning import names

    from msg_ms.boxes.batches import DetectionBatch
    from msg_ms.config import load_config
    from msg_ms.engine.device import setup_device
    from msg_ms.engine.optim import build_optimizer
    from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, build_step
    from msg_ms.models.detection.decay import has_detection_decay
    from msg_ms.models.detection.detection_loss import DetectionLoss

    setup_device("CPU", 0)
    model = detector(args.model, drop_path_rate=0.0)
    for parameter in model.get_parameters():
        parameter.set_data(Tensor(data.pop(f"own/{parameter.name}")))
    loss = DetectionLoss(model)
    loss.set_train(True)
    train = load_config(None, TRAIN__WEIGHT_DECAY=WEIGHT_DECAY).train
    optimizer = build_optimizer(train, model.trainable_params(), has_detection_decay)
    step = build_step(LossAndGradients(loss, optimizer.targets), OptimizerStep(optimizer, 0.0), 0)
    masks = model.settings.masks
    batch = DetectionBatch.of([data[f"batch/{name}"] for name in names(masks)], masks)
    return lambda: [float(value) for value in step.run([batch], RATE)[0][1:]]  # without the total


def torch_step(args, data: dict) -> Callable[[], list[float]]:
    """Do the same in PyTorch."""
    import torch
    from torch_detector import TorchDetector, fast, fast_roi_align, map_roi_levels
    from torch_detector_training import Trainer, decay_groups, load

    torch.set_num_threads(args.threads)
    model = TorchDetector(*detector_arguments(args.model)).train()  # without stochastic depth
    load(model, {name[6:]: torch.from_numpy(data.pop(name)) for name in list(data) if name.startswith("state/")})
    batch = {name[6:]: torch.from_numpy(values) for name, values in data.items()}
    optimizer = torch.optim.AdamW(decay_groups(model, WEIGHT_DECAY), lr=RATE, fused=True)
    trainer = Trainer(model)

    def pool_pyramid(levels, rois, side: int, strides):
        boxes = torch.cat([torch.nn.functional.pad(box, (1, 0), value=i) for i, box in enumerate(rois)])
        return fast_roi_align(levels, boxes, map_roi_levels(boxes[:, 1:], 4), side)

    def pool(masks, boxes, side: int):
        rois = torch.cat((torch.arange(len(boxes))[:, None], boxes), 1)
        return fast.roi_align(masks, rois, side, 1.0, -1, True)

    if fast is not None:
        trainer.pool_pyramid, trainer.pool, trainer.suppress = pool_pyramid, pool, fast.nms

    def step() -> list[float]:
        losses = trainer.losses(batch)
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
        return [loss.item() for loss in losses]

    return step


if __name__ == "__main__":
    run_command_line(main)
