"""Image classification: class folders, cross entropy, top-1 and top-5 accuracy."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any, cast

import mindspore as ms
from mindspore import Tensor, nn

from ..checkpoint import Metadata
from ..config import Config
from ..data import DeviceCollate, EvalDataset, ImageFolder, Shard, TrainDataset, load_folders
from ..data.classification import ClassificationBatch
from ..data.images.class_names import default_class_names
from ..data.images.splits import folders_from_arrays, folders_to_arrays
from ..data.pixels.device_collate import can_erase_on_device
from ..data.pixels.preprocessing import PREPROCESSING_KEY, Preprocessing, normalization
from ..deploy import ClassifierExporter
from ..engine.outputs import EvalOutputs
from ..engine.predictor import DEFAULT_OPTIONS, PredictOptions
from ..engine.ranks import Ranks
from ..engine.shared import once_per_node
from ..engine.task import Metrics
from ..errors import UserError, refuse_options
from ..models.build import build_model, image_channels
from ..models.inference import optimize_for_inference
from ..models.losses import SmoothedCrossEntropy
from ..models.msg_transformer import MSGTransformer
from ..models.precision import set_precision
from ..report import Report
from ..visualize.contact_sheet import TILE
from .batch_drawings import Drawing, draw_classes
from .classes import ClassesTask
from .classification_evaluator import METRICS, ClassificationEvaluator, DetailedEvaluator
from .classification_predictor import ClassificationPredictor
from .classification_report import classification_report
from .classification_results import check_predictions


class ClassificationTask(ClassesTask):
    """An MSG-Transformer classifier on image folders.

    Args:
        config: The whole configuration.

    Raises:
        UserError: If the model's images have other channels than 3 or 1.
    """

    metrics = METRICS
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

    def detailed_evaluator(self, model: MSGTransformer) -> DetailedEvaluator:
        """Return an evaluator that keeps the predictions for each image."""
        names = default_class_names(self.config.model.num_classes, json.dumps(list(self.class_names)))
        return DetailedEvaluator(model, self.folders[1], names)

    def check_outputs(self, outputs: EvalOutputs) -> None:
        """Raise UserError if the file of results or the report can't be written."""
        super().check_outputs(outputs)
        if outputs.results is not None:
            check_predictions(outputs.results)

    def report(self, evaluator: DetailedEvaluator, metrics: Metrics) -> Report:
        """Return accuracies by class, confusions, calibration and the worst images."""
        return classification_report(evaluator, metrics)

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
