"""Cascade R-CNN (Cai and Vasconcelos, TPAMI 2019), with or without masks, on an MSG-Transformer backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ...boxes.masks import paste_masks
from ...errors import UserError
from ...framework.compile_memory import CompactAfterCompile
from ...framework.compile_phase import FastCompilePhase
from ..arguments import check_rows
from ..feature_info import FeatureInfo
from ..inputs import as_images, as_numbers
from .backbone import DetectionBackbone
from .box_coder import decode_boxes
from .fpn import FPN
from .nms import MulticlassNMS
from .proposals import Proposals
from .roi_head import RoIHead
from .rpn_head import RPNHead
from .settings import STAGE_STDS, STAGES, DetectorSettings
from .window_maps import stage_maps

MASK_HEADS = "roi_head.mask_head."  # prefix of the parameters


class Detections(NamedTuple):
    """The detections of one image, by falling score.

    Attributes:
        boxes: Boxes (N, 4) in pixels of the original image, float32.
        scores: Probabilities (N,), float32.
        labels: Classes (N,), int32.
        masks: For each detection a mask of the original image's size as COCO's run-length encoding,
            ``{"size": [height, width], "counts": str}``. None from a detector without masks.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict] | None


class CascadeMaskRCNN(CompactAfterCompile, FastCompilePhase):
    """Cascade Mask R-CNN: backbone, feature pyramid, region proposals, three cascade stages of box and mask heads.

    With ``settings.masks`` False there are no mask heads: it is Cascade R-CNN, with the same boxes.

    Parameters have mmdetection's names, with MindSpore's names for the parameters of normalisations.

    Args:
        backbone: The backbone.
        settings: The other sizes, and the thresholds.
    """

    def __init__(self, backbone: DetectionBackbone, settings: DetectorSettings):
        super().__init__()
        s = settings
        self.settings = s
        self.backbone = backbone
        self.neck = FPN(backbone.out_channels, s.fpn_channels)
        self.rpn_head = RPNHead(s.fpn_channels, s.fpn_channels)
        self.roi_head = RoIHead(s)
        self.test_proposals = Proposals(s.strides, s.test_candidates, s.test_proposals, s.proposal_iou)
        self.detections = MulticlassNMS(s.score_threshold, s.detection_iou, s.max_detections)

    def pyramid(
        self, images: Tensor, drop_path_noise: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the pyramid and the predictions of the region proposal network.

        Args:
            images: Normalised images (B, 3, height, width), padded to one size with zeros.
            drop_path_noise: Uniform numbers in [0, 1), float32 (blocks, 2, B), for stochastic depth in training. If
                None, the device draws them.

        Returns:
            Three tuples with an entry for every level: maps (B, C, H_i, W_i), objectness logits (B, A, H_i, W_i), and
            box deltas (B, 4*A, H_i, W_i).
        """
        maps = self.neck(self.backbone(images, drop_path_noise))
        logits, deltas = self.rpn_head(maps)
        return maps, logits, deltas

    def __call__(self, images: Any = None, img_shapes: Any = None, scale_factors: Any = None) -> Any:
        """Return the outputs of ``construct``; raise UserError for inputs of other kinds or shapes."""
        images = as_images(images)
        for name, value, columns in (("img_shapes", img_shapes, 2), ("scale_factors", scale_factors, 4)):
            check_rows(name, value, images.shape[0], columns)
        return super().__call__(images, img_shapes, scale_factors)

    def construct(self, images: Tensor, img_shapes: Tensor, scale_factors: Tensor) -> tuple[Tensor, ...]:
        """Detect objects; the part of ``predict`` that runs as a graph.

        Args:
            images: Normalised images (B, 3, height, width), padded to one size with zeros.
            img_shapes: Height and width of the images without padding, float32 (B, 2).
            scale_factors: The images' sizes over those of the original images, as (x, y, x, y), float32 (B, 4).

        Returns:
            Boxes (B, N, 4) in pixels of the original images, scores (B, N), classes (B, N), int32, mask probabilities
            (B, N, 2*S, 2*S), and which are used (B, N), bool. Unused slots come last. A detector without masks returns
            no mask probabilities.
        """
        maps, rpn_logits, rpn_deltas = self.pyramid(images)
        found = self.test_proposals(rpn_logits, rpn_deltas, img_shapes)
        proposals, used = found[0], found[2]
        rois, logits, deltas = self.roi_head.cascade(maps, proposals, img_shapes)
        boxes, scores = self.scored_boxes(rois[-1], logits, deltas[-1], used, img_shapes, scale_factors)
        boxes, scores, pairs, used = self.detections(boxes, scores)
        labels = pairs % self.settings.num_classes
        if not self.settings.masks:
            return boxes, scores, labels, used
        return boxes, scores, labels, self.mask_probabilities(maps, boxes, labels, scale_factors), used

    def scored_boxes(
        self,
        rois: Tensor,
        logits: tuple[Tensor, ...],
        deltas: Tensor,
        used: Tensor,
        img_shapes: Tensor,
        scale_factors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return every proposal's box for each class, and its probabilities.

        Args:
            rois: The last cascade stage's RoIs (B, P, 4).
            logits: Every cascade stage's logits (B, P, K + 1), of which the mean counts.
            deltas: The last cascade stage's deltas (B, P, 4*K).
            used: Which proposals are used (B, P), bool. The others have probability 0.
            img_shapes: As in ``construct``.
            scale_factors: As in ``construct``.

        Returns:
            Boxes (B, P, 4*K) in pixels of the original images, and probabilities (B, P, K + 1).
        """
        mean = logits[0]
        for logit in logits[1:]:
            mean = mean + logit
        scores = ops.softmax(mean / len(logits), -1) * used.astype(ms.float32).expand_dims(-1)
        boxes = decode_boxes(rois, deltas, STAGE_STDS[-1], img_shapes.expand_dims(1))
        factors = ops.tile(scale_factors, (1, self.settings.num_classes)).expand_dims(1)
        return boxes / factors, scores

    def mask_probabilities(
        self, maps: tuple[Tensor, ...], boxes: Tensor, labels: Tensor, scale_factors: Tensor
    ) -> Tensor:
        """Return the mean over the cascade stages of the mask probabilities of detections, (B, N, 2*S, 2*S)."""
        rois, total = boxes * scale_factors.expand_dims(1), 0.0
        for stage in range(STAGES):
            total = total + ops.sigmoid(self.roi_head.predict_masks(stage, maps, rois, labels))
        return total / STAGES

    def predict(
        self, images: Tensor, img_shapes: np.ndarray, ori_shapes: np.ndarray, scale_factors: np.ndarray
    ) -> list[Detections]:
        """Detect objects in a batch of images; call ``set_train(False)`` first.

        Args:
            images: Normalised images (B, 3, height, width), padded to one size with zeros; arrays and lists work too.
            img_shapes: Height and width of the images without padding, (B, 2).
            ori_shapes: Height and width of the original images, (B, 2).
            scale_factors: The images' sizes over those of the original images, as (x, y, x, y), (B, 4).

        Returns:
            The detections of every image.

        Raises:
            UserError: If the inputs have other types, or other sizes than those of the images.
        """
        images = as_images(images)
        count, _, height, width = images.shape
        sizes = as_numbers("img_shapes", img_shapes, count, 2)
        originals = as_numbers("ori_shapes", ori_shapes, count, 2)
        factors = as_numbers("scale_factors", scale_factors, count, 4)
        if (sizes > (height, width)).any():
            raise UserError(f"img_shapes={sizes.tolist()}: larger than the images of {height} x {width}")
        outputs = [output.asnumpy() for output in self(images, Tensor(sizes), Tensor(factors))]
        return [
            to_detections([output[i] for output in outputs], shape, self.settings.mask_threshold)
            for i, shape in enumerate(originals)
        ]

    def own_weights(self, arrays: Mapping[str, np.ndarray], source: Path) -> tuple[dict[str, np.ndarray], list[str]]:
        """Return the weights of a checkpoint without mask heads if the detector has none, and a line on that.

        Args:
            arrays: Arrays by name.
            source: The file that they come from.

        Raises:
            UserError: If the detector has masks and the file is that of a detector without.
        """
        others = {name: values for name, values in arrays.items() if not name.startswith(MASK_HEADS)}
        in_file = len(others) < len(arrays)
        if self.settings.masks and not in_file and any(name.startswith("roi_head.") for name in arrays):
            raise UserError(f"{source} is a detector without masks: pass --opts MODEL.RCNN.MASKS False")
        if self.settings.masks or not in_file:
            return dict(arrays), []
        return others, ["the mask heads are left out, as MODEL.RCNN.MASKS is False"]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Save memory in training: keep only the inputs of the backbone's blocks, and recompute the rest."""
        self.backbone.set_grad_checkpointing(enable)
        self.compile_cache.clear()

    def no_weight_decay(self) -> set[str]:
        """Return the names of the backbone's parameters without weight decay, see ``MSGTransformer``."""
        return self.backbone.no_weight_decay()

    @property
    def feature_info(self) -> FeatureInfo:
        """Channels and stride of the backbone's maps."""
        return self.backbone.feature_info

    def flops(self, height: int, width: int, rois: int = 1000, masks: int = 100) -> float:
        """Return the multiply-adds for one image, counted as in the paper's table.

        Convolutions, linear layers and attention count, and so do LayerNorm, batch normalisation and the ReLU after
        the convolutions of the box and mask heads.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
            rois: RoIs that every box head processes.
            masks: RoIs that every mask head processes, if there are any.
        """
        b = self.backbone
        maps_of_stages = stage_maps(height, width, b.patch_size, b.window_size, b.shuffle_size)
        sizes = [(window_map.height, window_map.width) for window_map in maps_of_stages]
        total = b.flops(height, width) + self.neck.flops(sizes)
        height, width = sizes[-1]
        total += self.rpn_head.flops([*sizes, (-(-height // 2), -(-width // 2))])
        total += sum(head.flops(rois) for head in self.roi_head.bbox_head)
        return total + sum(head.flops(masks, self.settings.mask_size) for head in self.roi_head.mask_head)


def to_detections(outputs: Sequence[np.ndarray], ori_shape: np.ndarray, mask_threshold: float) -> Detections:
    """Return the detections of one image.

    Args:
        outputs: The image's entry of each output of ``CascadeMaskRCNN``.
        ori_shape: Height and width of the original image.
        mask_threshold: Least probability of a mask's pixels.
    """
    boxes, scores, labels, *masks, used = outputs
    height, width = (int(side) for side in ori_shape)
    encoded = paste_masks(masks[0][used], boxes[used], height, width, mask_threshold) if masks else None
    return Detections(boxes[used], scores[used], labels[used], encoded)
