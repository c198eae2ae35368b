"""Image classification: class folders, cross entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ..checkpoint import Metadata
from ..config import Config
from ..data import DeviceCollate, EvalDataset, ImageFolder, Shard, TrainDataset, load_folders
from ..data.classification import ClassificationBatch, ClassificationEvalBatch
from ..data.images.splits import folders_from_arrays, folders_to_arrays
from ..data.pixels.device_collate import can_erase_on_device
from ..data.pixels.preprocessing import PREPROCESSING_KEY, Preprocessing, normalization
from ..deploy import ClassifierExporter
from ..engine.predictor import DEFAULT_OPTIONS, PredictOptions
from ..engine.ranks import Ranks
from ..engine.shared import once_per_node
from ..engine.task import Metric, Metrics
from ..errors import UserError, refuse_options
from ..models.build import build_model, image_channels
from ..models.inference import optimize_for_inference
from ..models.losses import SmoothedCrossEntropy
from ..models.msg_transformer import MSGTransformer
from ..models.precision import set_precision
from ..visualize.contact_sheet import TILE
from .batch_drawings import Drawing, draw_classes
from .classes import ClassesTask
from .classification_predictor import ClassificationPredictor


class ClassificationTask(ClassesTask):
    """An MSG-Transformer classifier on image folders.

    Args:
        config: The whole configuration.

    Raises:
        UserError: If the model's images have other channels than 3 or 1.
    """

    metrics = (
        Metric("top1", "top-1", "{:.2f}%"),
        Metric("top5", "top-5", "{:.2f}%"),
        Metric("loss", "loss", "{:.4f}", higher_is_better=False, breaks_ties=True),
    )
    classes_title, comparison = "class folders", "accuracies compare"

    def __init__(self, config: Config):
        self.config, self.channels = config, image_channels(config.model, {3: "RGB", 1: "grey"})

    @functools.cached_property
    def folders(self) -> tuple[ImageFolder | None, ImageFolder]:
        """The training images (None if the run does not train) and the validation images."""
        return load_folders(self.config.data, self.config.model.num_classes, self.config.training)

    def prepare(self, ranks: Ranks) -> None:
        """List the images, on one rank of each machine."""
        self.folders = once_per_node(ranks, lambda: self.folders, folders_to_arrays, folders_from_arrays)

    def fingerprint(self) -> Iterable[bytes]:
        """Return names and labels of the images, and the classes, of all parts in use."""
        for folder in self.folders:
            if folder is not None:
                yield from folder.pieces()

    def warnings(self) -> Sequence[str]:
        """Return lines on ignored files and settings."""
        lines = [line for folder in self.folders if folder is not None for line in folder.warnings]
        if self.config.training and self.config.data.normalize_on_device and not can_erase_on_device(self.config.aug):
            lines.append(
                "warning: DATA.NORMALIZE_ON_DEVICE applies to evaluation only, as AUG.REMODE=pixel fills boxes with "
                "noise; training uses it with AUG.REMODE const or rand, or AUG.REPROB 0"
            )
        return lines

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the class folders in the order of their labels."""
        return self.folders[1].classes

    def metadata(self) -> dict[str, str]:
        """Return the names of the classes and the preprocessing of images."""
        steps = Preprocessing.of(self.config).as_metadata() | normalization(self.channels)
        return {**super().metadata(), PREPROCESSING_KEY: json.dumps(steps)}

    def build_model(self) -> MSGTransformer:
        """Return the classifier in the configured precision."""
        config = self.config
        model = build_model(config.model, config.data.img_size)
        set_precision(model, config.amp_opt_level, config.amp.dtype)
        return model

    def describe(self, model: MSGTransformer) -> str:
        """Return name, number of parameters, FLOPs and precision."""
        height, width = model.img_size
        return (
            f"{self.config.model.name}: {super().describe(model)}, {model.flops() / 1e9:.2f} GFLOPs at "
            f"{height} x {width}, precision {self.config.amp_opt_level}"
        )

    def train_data(self, shard: Shard, workers: int) -> TrainDataset:
        """Return batches of images, labels and noise for stochastic depth."""
        config = self.config
        return TrainDataset(
            cast(ImageFolder, self.folders[0]),  # training has read them
            config.data,
            config.aug,
            config.model.num_classes,
            config.model.label_smoothing,
            config.seed,
            workers,
            shard,
            config.train.accumulation_steps,
            blocks=sum(config.model.msg.depths),
            channels=self.channels,
        )

    def draw_batch(self, batch: ClassificationBatch) -> tuple[list[Drawing], int]:
        """Return the images of a batch with their classes."""
        return draw_classes(batch, self.class_names), TILE

    def eval_data(self, shard: Shard, workers: int) -> EvalDataset:
        """Return batches of images, labels and which rows are real."""
        return EvalDataset(self.folders[1], self.config.data, self.config.test.crop, workers, shard, self.channels)

    def loss_cell(self, model: MSGTransformer) -> ClassificationLoss:
        """Return the smoothed cross entropy of the model's logits."""
        if self.config.train.use_checkpoint:
            model.set_grad_checkpointing()
        return ClassificationLoss(model, self.config.model.label_smoothing)

    def evaluator(self, model: MSGTransformer) -> ClassificationEvaluator:
        """Return the evaluator of top-1, top-5 and cross entropy."""
        return ClassificationEvaluator(model, self.config.model.num_classes)

    def predictor(
        self, model: MSGTransformer, metadata: Metadata, options: PredictOptions = DEFAULT_OPTIONS
    ) -> ClassificationPredictor:
        """Return the predictor of classes."""
        refuse_options(options, "score_thr", reason="is for detectors")
        if options.show_messages and self.config.inference_precision != "float32":
            raise UserError(
                "--show-messages: the attention is drawn in single precision; leave out --inference-precision"
            )
        names, warnings = self.names_for_predictions(options.classes, metadata)
        if not options.show_messages:  # the attention needs the original parameters
            self.optimize_for_inference(model, strassen=True)
        return ClassificationPredictor(model, self.config, names, options, warnings)

    def exporter(self) -> ClassifierExporter:
        """Return the exporter of classifiers."""
        return ClassifierExporter(self.config)

    def optimize_for_inference(self, model: MSGTransformer, **options: Any) -> None:
        """Pack the model's weights for the native kernels, in place."""
        optimize_for_inference(model, precision=self.config.inference_precision, **options)


class ClassificationLoss(nn.Cell):
    """The training loss: images (B, C, S, S), labels (B,) or (B, K), noise (blocks, 2, B) -> (loss,).

    Images may also be uint8 (B, S, S, C), with the further inputs of ``msg_ms.data.DeviceCollate``.

    Args:
        model: The classifier.
        smoothing: Label smoothing of hard labels.
    """

    def __init__(self, model: nn.Cell, smoothing: float = 0.0):
        super().__init__(auto_prefix=False)
        self.model, self.loss = model, SmoothedCrossEntropy(smoothing)
        self.collate = DeviceCollate()

    def construct(self, images: Tensor, labels: Tensor, noise: Tensor, *collate_inputs: Tensor) -> tuple[Tensor]:
        """Return the mean loss of the batch."""
        if images.dtype == ms.uint8:
            images = self.collate(images, *collate_inputs)
        return (self.loss(self.model(images, noise), labels),)


class ClassificationSums(nn.Cell):
    """Sums over a batch: images, labels (B,), valid (B,) -> (cross entropy, top-1 hits, top-5 hits).

    Images are float32 (B, C, S, S), or uint8 (B, S, S, C).

    Args:
        model: The classifier.
        num_classes: With fewer than five classes, top-5 counts all of them.
    """

    def __init__(self, model: nn.Cell, num_classes: int):
        super().__init__(auto_prefix=False)
        self.model, self.collate = model, DeviceCollate()
        self.guesses = min(5, num_classes)

    def construct(self, images: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the three sums over the valid rows."""
        logits = self.model(self.collate(images) if images.dtype == ms.uint8 else images)
        log_probabilities = ops.log_softmax(logits, -1)
        labels = labels.reshape(-1, 1)
        losses = -ops.gather_elements(log_probabilities, 1, labels).reshape(-1)
        hits = (ops.topk(logits, self.guesses)[1] == labels).astype(ms.float32)
        top1, top5 = hits[:, 0], hits.sum(1)
        # Padding must not count even if its loss is NaN.
        losses = ops.select(valid > 0, losses, ops.zeros_like(losses))
        return losses.sum(), (top1 * valid).sum(), (top5 * valid).sum()


class ClassificationEvaluator:
    """Accuracy in percent and mean cross entropy without smoothing.

    Args:
        model: The classifier.
        num_classes: Number of classes.
    """

    def __init__(self, model: nn.Cell, num_classes: int):
        self.network = ClassificationSums(model, num_classes)
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self.sums, self.count = np.zeros(3), 0

    def update(self, batch: ClassificationEvalBatch, outputs: tuple[Tensor, ...]) -> None:
        """Add the sums over a batch."""
        self.sums += [float(value.asnumpy()) for value in outputs]
        self.count += int(batch.valid.sum())

    def compute(self, ranks: Ranks) -> Metrics:
        """Return the metrics over all images of all ranks."""
        *sums, count = ranks.sum([*self.sums, self.count])
        loss, top1, top5 = np.array(sums) / max(1, count)
        values: dict[str, float | None] = {"top1": float(100 * top1), "top5": float(100 * top5), "loss": float(loss)}
        return Metrics(ClassificationTask.metrics, values, int(count))
