"""Compare the results of two machines: python tests/aarch64/compare.py write FILE, and compare FILE OTHER.

``write`` computes images, batches, weights, logits, gradients and files from fixed seeds and stores them in an .npz.
``compare`` prints a Markdown table of two such files: "identical" where all bits are equal, else the largest difference
relative to an array's largest magnitude.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.detection_model import random_detector
from support.reference import FIXTURES, SMALL, random_weights
from support.small_detector import CONFIG, write_data

from msg_ms import MSGTransformer
from msg_ms.checkpoint import read_checkpoint, to_numpy, write_checkpoint
from msg_ms.config import load_config
from msg_ms.convert import export_state_dict
from msg_ms.convert.torch_reader.file import read_torch_file
from msg_ms.convert.torch_writer import write_torch_file
from msg_ms.data import EpochOrder, EvalDataset, TrainDataset, scan_folder
from msg_ms.data.pipeline import WHOLE, arrays_of
from msg_ms.data.pixels.decode import decode
from msg_ms.engine.optim import build_optimizer
from msg_ms.engine.predictor import PredictOptions
from msg_ms.engine.train_step import LossAndGradients, OptimizerStep, TrainStep
from msg_ms.models.precision import set_precision
from msg_ms.ops.backend import use_backend
from msg_ms.tasks import build_task
from msg_ms.tasks.classification import ClassificationLoss

IMAGES = FIXTURES / "images"
BATCH, STEPS = 4, 5
Row = tuple[str, np.ndarray]  # the table's line, and an array that belongs to it


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description="Compare the results of two machines.")
    parser.add_argument("action", choices=("write", "compare"))
    parser.add_argument("files", type=Path, nargs="+", help="the file to write, or the two files to compare")
    arguments = parser.parse_args()
    if len(arguments.files) != (1 if arguments.action == "write" else 2):
        parser.error("write takes one file, compare two")
    if arguments.action == "compare":
        print(table(*map(read, arguments.files)))
        return 0
    arrays: dict[str, np.ndarray] = {}
    for part in (pixels, batches, models, detector, files):
        for name, value in part():
            arrays[f"{name}/{len(arrays):05d}"] = np.ascontiguousarray(value)
    np.savez(arguments.files[0], **arrays)
    return 0


def read(file: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    with np.load(file) as stored:
        return dict(stored)


def table(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> str:
    """Return the Markdown table of two sets of arrays."""
    if one.keys() != other.keys():
        raise SystemExit(f"error: the files hold different arrays: {sorted(one.keys() ^ other.keys())[:5]}")
    lines = ["| result | arrays | identical | largest difference |", "|---|---|---|---|"]
    for name in dict.fromkeys(key.rpartition("/")[0] for key in one):
        pairs = [(one[key], other[key]) for key in one if key.rpartition("/")[0] == name]
        same = [a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs]
        worst = "identical" if all(same) else f"{max(difference(a, b) for a, b in pairs):.1g}"
        lines.append(f"| {name} | {len(pairs)} | {sum(same)} | {worst} |")
    return "\n".join(lines)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference relative to the largest magnitude; infinite for arrays of different shapes."""
    if one.shape != other.shape:
        return float("inf")
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(np.abs(one - other).max(initial=0) / max(np.abs(one).max(initial=0), np.finfo(np.float32).tiny))


def pixels() -> Iterator[Row]:
    """Yield decoded JPEG files, and the images of an evaluation, resized and cropped."""
    for file in sorted(IMAGES.glob("val_*.jpg")):
        yield "decoded JPEG files", decode(file.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        listed = scan_folder(image_folder(Path(folder)))
        for interpolation in ("bicubic", "bilinear"):
            config = load_config(None, DATA__BATCH_SIZE=1, DATA__INTERPOLATION=interpolation)
            for batch in EvalDataset(listed, config.data, True, 1).batches():
                yield f"evaluation images, {interpolation}", batch[0]


def image_folder(folder: Path) -> Path:
    """Link the fixtures' images as two classes and return the folder."""
    for i, file in enumerate(sorted(IMAGES.iterdir())):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        (folder / "ab"[i % 2] / file.name).symlink_to(file)
    return folder


def batches() -> Iterator[Row]:
    """Yield the order of a million images, and training batches: of the paper's recipe, and of a detector."""
    for epoch in range(2):
        yield "order of 1,000,000 images", EpochOrder(1_000_000, 64, seed=1).indices(epoch)
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(None, DATA__BATCH_SIZE=BATCH, DATA__IMG_SIZE=96)
        data = TrainDataset(scan_folder(image_folder(Path(folder))), config.data, config.aug, 3, 0.1, 1, 1, WHOLE)
        for batch in data.batches(0, 3):
            for array in arrays_of(batch):
                yield "training batches, recipe of the paper", array
    with tempfile.TemporaryDirectory() as folder:
        for batch in small_task(Path(folder)).train_data(WHOLE, 1).batches(0, 2):
            for array in arrays_of(batch):
                yield "training batches of a detector", array


def small_task(folder: Path, **keys):
    """Return the task of the smallest detector, with its data in a folder."""
    (folder / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return build_task(load_config(folder / "small.yaml", DATA__DATA_PATH=str(write_data(folder)), **keys))


def classifier(level: str) -> MSGTransformer:
    """Return a small model with weights that make logits of about 1."""
    model = random_weights(MSGTransformer(**SMALL))
    set_precision(model, level)
    return model


def classifier_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and the noise of stochastic depth."""
    draws = np.random.RandomState(3)
    images = draws.standard_normal((BATCH, 3, SMALL["img_size"], SMALL["img_size"])).astype(np.float32)
    return images, draws.randint(0, SMALL["num_classes"], BATCH).astype(np.int32), np.zeros((2, 2, BATCH), np.float32)


def models() -> Iterator[Row]:
    """Yield initial weights, logits, gradients, and weights after steps of AdamW."""
    ms.set_seed(1)
    for parameter in MSGTransformer(**SMALL).get_parameters():
        yield "initial weights from a seed", parameter.asnumpy()
    batch = classifier_batch()
    for backend, level in (("native", "O0"), ("composed", "O0"), ("native", "O1")):
        name = {"native": "native kernels", "composed": "composed operators"}[backend]
        name += ", float16" if level == "O1" else ""
        with use_backend(backend):
            model = classifier(level)
            if level == "O0":
                yield f"logits, {name}", model(Tensor(batch[0])).asnumpy()
            config = load_config(None).train
            optimizer = build_optimizer(config, model.trainable_params())
            gradients = LossAndGradients(ClassificationLoss(model, 0.1), optimizer.targets)
            losses, values = gradients(*map(Tensor, batch))
            yield f"loss, {name}", losses[0].asnumpy()
            yield from by_parameter(f"gradients, {name}", optimizer.targets, values)
            if (backend, level) == ("native", "O0"):
                step = TrainStep(gradients, OptimizerStep(optimizer, config.clip_grad))
                for _ in range(STEPS):
                    step.run([batch], 1e-4)
                yield from by_parameter(f"weights after {STEPS} steps, {name}", optimizer.targets, optimizer.targets)


def by_parameter(row: str, parameters: Iterable[Parameter], values: Iterable[Tensor]) -> Iterator[Row]:
    """Yield parameters, or their gradients; in a line of their own the gradients that are zero in exact arithmetic.

    They are those of the keys' bias and of the message's own row: softmax cancels both. Adam turns their rounding into
    whole steps.
    """
    for parameter, tensor in zip(parameters, values, strict=True):
        value, zero = tensor.asnumpy(), tensor.asnumpy()[:0]
        if parameter.name.endswith("qkv.bias"):
            third = len(value) // 3
            value, zero = np.delete(value, np.s_[third : 2 * third]), value[third : 2 * third]
        elif parameter.name.endswith("rel_pos_msg"):
            value, zero = value[:, :1], value[:, 1:]
        yield row, value
        if zero.size:
            yield f"{row}, keys' bias and message's row", zero


def detector() -> Iterator[Row]:
    """Yield features, boxes, scores and masks of the smallest detector with random weights, operator by operator."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with tempfile.TemporaryDirectory() as folder:
        task = small_task(Path(folder), MODEL__RCNN__SCORE_THR=0.0)
        model = random_detector(task.build_model(), 5)
        images = np.random.RandomState(5).standard_normal((2, 3, 64, 64)).astype(np.float32)
        for level in model.backbone(Tensor(images)):
            yield "features of a detector", level.asnumpy()
        predictor = task.predictor(model, {}, PredictOptions(batch_size=2, score_thr=0.0))
        for found in predictor.predict(sorted((Path(folder) / "val2017").iterdir())):
            yield "detections: boxes in pixels", found.boxes
            yield "detections: scores", found.scores
            yield "detections: masks", found.masks
    ms.set_context(mode=ms.GRAPH_MODE)


def files() -> Iterator[Row]:
    """Yield the bytes of checkpoints of one set of weights with denormal numbers, and the weights read from them."""
    arrays = to_numpy({p.name: p for p in random_weights(MSGTransformer(**SMALL)).get_parameters()})
    # Only bits: arithmetic may flush such numbers to zero.
    arrays["head.bias"] = np.array([0x1, 0x8000_0001, 0x7F_FFFF], np.uint32).view(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".ckpt", ".safetensors"):
            write_checkpoint(Path(folder) / f"weights{suffix}", arrays, {"epoch": 3} if suffix == ".ckpt" else {})
        write_torch_file(Path(folder) / "weights.pth", export_state_dict(arrays, buffers=False))
        for file in sorted(Path(folder).iterdir()):
            if file.suffix != ".safetensors":  # the library writes its metadata in random order
                yield f"bytes of a {file.suffix} file", np.frombuffer(file.read_bytes(), np.uint8)
            state = read_torch_file(file).state if file.suffix == ".pth" else read_checkpoint(file)[0]
            for value in state.values():
                yield f"weights read from a {file.suffix} file", value


if __name__ == "__main__":
    sys.exit(main())
