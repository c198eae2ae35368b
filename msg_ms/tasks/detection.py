"""Object detection and instance segmentation: COCO data, Cascade R-CNN with and without masks, box and mask AP."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from mindspore import Parameter, nn

from ..boxes.batches import DetectionBatch, DetectionEvalBatch
from ..checkpoint import Metadata
from ..config import Config
from ..data.coco.arrays import data_pieces, splits_from_arrays, splits_to_arrays
from ..data.coco.split import CocoSplit, ground_truth_warnings, load_coco
from ..data.detection import DetectionEvalDataset, DetectionTrainDataset
from ..data.pipeline import Shard
from ..data.pixels.preprocessing import PREPROCESSING_KEY, normalization
from ..deploy import DetectorExporter
from ..engine.outputs import EvalOutputs
from ..engine.predictor import DEFAULT_OPTIONS, PredictOptions
from ..engine.ranks import Ranks
from ..engine.shared import once_per_node
from ..engine.task import Metrics
from ..errors import UserError, refuse_options
from ..models.build import image_channels
from ..models.detection.build import build_detector
from ..models.detection.cascade_rcnn import CascadeMaskRCNN
from ..models.detection.decay import has_detection_decay
from ..models.detection.detection_loss import BOX_LOSS_NAMES, LOSS_NAMES, DetectionLoss
from ..models.detection.pretrained import load_detector
from ..models.inference import optimize_for_inference
from ..models.precision import set_precision
from ..report import Report
from ..visualize.detections import SMALLEST
from .batch_drawings import Drawing, draw_ground_truth
from .classes import ClassesTask
from .coco_evaluator import BOX_METRICS, METRICS, CocoEvaluator, check_detections
from .detection_predictor import DetectionPredictor
from .detection_report import detection_report

CATEGORIES_KEY = "category_ids"  # COCO's ids of the classes, in checkpoints


class DetectionTask(ClassesTask):
    """Cascade Mask R-CNN, or Cascade R-CNN, with an MSG-Transformer backbone on COCO data.

    Args:
        config: The whole configuration.

    Raises:
        UserError: If the configuration asks for something that this package does not support.
    """

    classes_title, comparison = "categories", "the AP compares"

    def __init__(self, config: Config):
        self.config, self.masks = config, config.model.rcnn.masks
        self.channels = image_channels(config.model, {3: "RGB"})
        self.metrics = METRICS if self.masks else BOX_METRICS
        self.loss_names = LOSS_NAMES if self.masks else BOX_LOSS_NAMES

    @functools.cached_property
    def splits(self) -> tuple[CocoSplit | None, CocoSplit]:
        """The training images (None if the run does not train) and the validation images."""
        return load_coco(self.config.data, self.config.model.num_classes, self.config.training, self.masks)

    def prepare(self, ranks: Ranks) -> None:
        """Read the annotations, on one rank of each machine."""
        self.splits = once_per_node(ranks, lambda: self.splits, splits_to_arrays, splits_from_arrays)

    def fingerprint(self) -> Iterable[bytes]:
        """Return everything that training and evaluation use of the annotations, and the images' names."""
        for split in self.splits:
            if split is not None:
                yield from data_pieces(split)

    def warnings(self) -> Sequence[str]:
        """Return lines on odd and on ignored annotations."""
        train, val = self.splits
        lines = [line for split in (train, val) if split is not None for line in split.warnings]
        return lines if train is None else [*lines, *ground_truth_warnings(train, self.config.detection.max_gt)]

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the categories in the order of their labels."""
        return self.splits[1].class_names

    def metadata(self) -> dict[str, str]:
        """Return names and COCO's ids of the categories in the order of their labels, and the preprocessing."""
        sides = {key: getattr(self.config.detection, key) for key in ("test_short_side", "test_long_side")}
        return {
            **super().metadata(),
            CATEGORIES_KEY: json.dumps(list(self.splits[1].category_ids)),
            PREPROCESSING_KEY: json.dumps(sides | normalization(self.channels)),
        }

    def build_model(self) -> CascadeMaskRCNN:
        """Return the detector in the configured precision."""
        config = self.config
        model = build_detector(config.model)
        set_precision(model, config.amp_opt_level, config.amp.dtype)
        return model

    def describe(self, model: CascadeMaskRCNN) -> str:
        """Return name, number of parameters, multiply-adds on the largest canvas and precision."""
        height, width = max(self.config.detection.canvases, key=np.prod)
        flops = model.flops(height, width, self.config.model.rcnn.test_proposals, self.config.model.rcnn.max_per_img)
        return (
            f"{self.config.model.name}: {super().describe(model)}, {flops / 1e9:.1f} GFLOPs at {height} x {width}, "
            f"precision {self.config.amp_opt_level}"
        )

    def has_weight_decay(self, parameter: Parameter) -> bool:
        """Return whether weight decay applies, by Swin Transformer's rules for detection."""
        return has_detection_decay(parameter)

    def load_pretrained(self, model: CascadeMaskRCNN, path: Path) -> list[str]:
        """Set the weights from a classifier's checkpoint (the backbone's) or a detector's; return the changes."""
        return load_detector(model, path)

    def train_data(self, shard: Shard, workers: int) -> DetectionTrainDataset:
        """Return batches of images, ground truth, the region proposal network's targets, and random numbers."""
        config = self.config
        return DetectionTrainDataset(
            cast(CocoSplit, self.splits[0]),  # training has read them
            config.data,
            config.detection,
            config.seed,
            workers,
            shard,
            config.train.accumulation_steps,
            blocks=sum(config.model.msg.depths),
            proposals=config.model.rcnn.train_proposals,
            rois=config.model.rcnn.roi_samples,
            masks=self.masks,
        )

    def draw_batch(self, batch: DetectionBatch) -> tuple[list[Drawing], int]:
        """Return the images of a batch with boxes and masks of the ground truth."""
        return draw_ground_truth(batch, self.class_names), SMALLEST

    def eval_data(self, shard: Shard, workers: int) -> DetectionEvalDataset:
        """Return batches of images with their sizes, indices, and which rows are real."""
        return DetectionEvalDataset(self.splits[1], self.config.data, self.config.detection, workers, shard)

    def loss_cell(self, model: CascadeMaskRCNN) -> nn.Cell:
        """Return the detector's losses."""
        if self.config.train.use_checkpoint:
            model.set_grad_checkpointing()
        return DetectionLoss(model)

    def evaluator(self, model: CascadeMaskRCNN) -> CocoEvaluator:
        """Return the evaluator of box AP and, with masks, mask AP."""
        return CocoEvaluator(model, self.splits[1], model.settings.mask_threshold, self.masks)

    def check_outputs(self, outputs: EvalOutputs) -> None:
        """Raise UserError if a file can't be written, or there is nothing to report."""
        super().check_outputs(outputs)
        split = self.splits[1]
        if split.truth is None and (outputs.per_class or outputs.report is not None or outputs.results is None):
            raise UserError(
                f"{split.annotation_file}: the key 'annotations' is missing, so there are no metrics; pass --results "
                "without --per-class and --report to write the detections"
            )
        if outputs.results is not None:
            check_detections(outputs.results, self.masks)

    def report(self, evaluator: CocoEvaluator, metrics: Metrics) -> Report:
        """Return precision and recall, AP by size and class, the kinds of errors and the worst images."""
        return detection_report(evaluator, metrics)

    def predictor(
        self, model: CascadeMaskRCNN, metadata: Metadata, options: PredictOptions = DEFAULT_OPTIONS
    ) -> DetectionPredictor:
        """Return the predictor of objects."""
        refuse_options(options, "top_k", "show_messages", reason="is for classifiers")
        names, warnings = self.names_for_predictions(options.classes, metadata)
        self.optimize_for_inference(model, strassen=True)
        return DetectionPredictor(model, self.config, names, options, warnings)

    def exporter(self) -> DetectorExporter:
        """Return the exporter of detectors."""
        return DetectorExporter(self.config)

    def optimize_for_inference(self, model: CascadeMaskRCNN, **options: Any) -> None:
        """Pack the backbone's weights for the native kernels, in place."""
        optimize_for_inference(model, precision=self.config.inference_precision, **options)

    def inference_inputs(self, batch: DetectionEvalBatch) -> tuple[np.ndarray, ...]:
        """Return images, sizes without padding and scale factors."""
        return batch.images, batch.img_shapes, batch.scale_factors
