"""The detector of the vectors with its parameters, and its gradients under mmdetection's names."""

from __future__ import annotations

from collections.abc import Iterable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from msg_ms.checkpoint import parameters_by_name
from msg_ms.convert import convert_state_dict, export_state_dict
from msg_ms.convert.detection_rules import DETECTION_RULES
from msg_ms.models.detection.backbone import DetectionBackbone
from msg_ms.models.detection.cascade_rcnn import MASK_HEADS, CascadeMaskRCNN
from msg_ms.models.detection.settings import DetectorSettings
from msg_ms.ops import RoIAlign
from support.detection import TABLE, TOLERANCES, model_settings, vectors


def load(cell: nn.Cell, prefix: str = "") -> nn.Cell:
    """Set all parameters of the vectors with a prefix, with or without mask heads, in evaluation mode."""
    state = convert_state_dict(vectors("params").arrays, rules=DETECTION_RULES)
    chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    parameters = parameters_by_name(cell.get_parameters())
    assert set(parameters) <= set(chosen)
    assert all(name.startswith(MASK_HEADS) for name in set(chosen) - set(parameters))
    for name, parameter in parameters.items():
        assert tuple(parameter.shape) == chosen[name].shape
        parameter.set_data(Tensor(chosen[name]))
    return cell.set_train(False)


def backbone() -> DetectionBackbone:
    arguments = {key: value for key, value in model_settings()["backbone"].items() if key != "type"}
    return load(DetectionBackbone(**arguments), "backbone.")


def torch_names(parameters: Iterable[Parameter], prefix: str = "") -> list[str]:
    """The parameters' names in mmdetection, without the prefix."""
    state = {prefix + parameter.name: np.empty(0) for parameter in parameters}
    return [name.removeprefix(prefix) for name in export_state_dict(state, buffers=False, rules=DETECTION_RULES)]


def check_gradient(group: str, key: str, gradient: Tensor) -> None:
    """Compare a gradient ``<case>/grad/<name>``."""
    check_flat_gradient(f"{group} {key.split('/grad/')[0]} gradients", group, key, gradient)


def check_flat_gradient(line: str, group: str, key: str, gradient: Tensor) -> None:
    """Compare a gradient, of which the vectors may hold every ``step``-th value, the norm and two sums."""
    reference = vectors(group)
    about, gradient = reference.description["arrays"][key], gradient.asnumpy().ravel()
    TABLE.check(line, gradient[:: about.get("step", 1)], reference[key].ravel(), "gradient")
    if "sums" in about:
        norm = np.linalg.norm(gradient.astype(np.float64))
        assert abs(norm - about["sums"][1]) <= TOLERANCES["gradient"] * max(about["sums"][1], 1e-12), key


def detector(**changes) -> CascadeMaskRCNN:
    """The detector of the vectors, with its parameters, in evaluation mode."""
    model = model_settings()
    roi, train, test = model["roi_head"], model["train_cfg"], model["test_cfg"]
    box, mask, sampler = roi["bbox_head"][0], roi["mask_head"], train["rcnn"][0]["sampler"]
    settings = dict(
        num_classes=box["num_classes"],
        fpn_channels=model["neck"]["out_channels"],
        fc_channels=box["fc_out_channels"],
        box_size=box["roi_feat_size"],
        mask_size=roi["mask_roi_extractor"]["roi_layer"]["output_size"],
        strides=tuple(model["rpn_head"]["anchor_generator"]["strides"]),
        proposal_iou=test["rpn"]["nms"]["iou_threshold"],
        test_candidates=test["rpn"]["nms_pre"],
        test_proposals=test["rpn"]["max_per_img"],
        train_candidates=train["rpn_proposal"]["nms_pre"],
        train_proposals=train["rpn_proposal"]["max_per_img"],
        score_threshold=test["rcnn"]["score_thr"],
        detection_iou=test["rcnn"]["nms"]["iou_threshold"],
        max_detections=test["rcnn"]["max_per_img"],
        mask_threshold=test["rcnn"]["mask_thr_binary"],
        roi_samples=sampler["num"],
        roi_positives=int(sampler["num"] * sampler["pos_fraction"]),
        stage_ious=tuple(stage["assigner"]["pos_iou_thr"] for stage in train["rcnn"]),
        stage_weights=tuple(roi["stage_loss_weights"]),
        box_loss_weight=box["loss_bbox"]["loss_weight"],
    )
    assert mask["conv_out_channels"] == box["conv_out_channels"] == model["neck"]["out_channels"]
    return load(CascadeMaskRCNN(backbone(), DetectorSettings(**{**settings, **changes})))


def random_detector(model: CascadeMaskRCNN, seed: int) -> CascadeMaskRCNN:
    """The detector with drawn weights, in evaluation mode: logits of about 1 and box deltas of about 0.3."""
    draws = np.random.RandomState(seed)
    for parameter in model.get_parameters():
        name, values = parameter.name, draws.standard_normal(parameter.shape)
        if name.endswith("moving_variance"):
            values = 1 + 0.2 * np.abs(values)
        elif name.endswith("gamma"):
            values = 1 + 0.1 * values
        elif name.endswith("weight") and values.ndim >= 2:
            values = values / np.sqrt(np.prod(values.shape[1:]))
        else:
            values = 0.1 * values
        parameter.set_data(Tensor((0.3 * values if "_reg" in name else values).astype(np.float32)))
    return model.set_train(False)


def image_sizes(group: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height and width without padding, height and width of the originals, and scale factors of the vectors' images."""
    metas = vectors(group).description["img_metas"]
    shapes = [np.array([meta[key][:2] for meta in metas], np.float32) for key in ("img_shape", "ori_shape")]
    return (*shapes, np.array([meta["scale_factor"] for meta in metas], np.float32))


class FullMaskTargets(nn.Cell):
    """Mask targets from bitmaps of full size, as mmdetection computes them; in place of ``MaskTargets``."""

    def __init__(self, size: int):
        super().__init__()
        self.roi_align = RoIAlign(size, (1,), max_cells=512)

    def construct(self, bitmaps: Tensor, frames: Tensor, regions: Tensor, gt_index: Tensor) -> Tensor:
        batch, count = frames.shape[:2]
        image = ops.arange(0, batch).astype(ms.int32).reshape(-1, 1) * count + gt_index
        rois = ops.cat((image.astype(ms.float32).reshape(-1, 1), regions.reshape(-1, 4)), 1)
        maps = bitmaps.reshape(batch * count, 1, *bitmaps.shape[2:]).astype(ms.float32)
        soft = self.roi_align((maps,), rois, ops.zeros_like(image).reshape(-1))
        return (soft >= 0.5).astype(ms.float32).reshape(batch, regions.shape[1], *soft.shape[2:])


def training_inputs(case: str) -> tuple:
    """The arguments of ``DetectionLoss`` for a case of the vectors, with draws that select its samples.

    The ground truth is padded to one box more than the largest image has.
    """
    reference, images = vectors("detector"), vectors("detector")["images"]
    batch, train = len(images), model_settings()["train_cfg"]
    boxes = [reference[f"gt.img{i}.boxes"] for i in range(batch)]
    count = max(map(len, boxes)) + 1
    gt, labels = np.zeros((batch, count, 4), np.float32), np.zeros((batch, count), np.int32)
    valid, masks = np.zeros((batch, count), bool), np.zeros((batch, count, *images.shape[2:]), np.uint8)
    for i, own in enumerate(boxes):
        gt[i, : len(own)], valid[i, : len(own)] = own, True
        labels[i, : len(own)] = reference[f"gt.img{i}.labels"]
        bitmaps = reference[f"gt.img{i}.masks"]
        masks[i, : len(own), : bitmaps.shape[1], : bitmaps.shape[2]] = bitmaps
    # The samples of the RPN are stored once, as they do not depend on the batch normalisation.
    targets = [_rpn_targets(reference, "train_bn", i, train["rpn"]["sampler"]["num"]) for i in range(batch)]
    draws, samples = [], train["rcnn"][0]["sampler"]["num"]
    for stage in range(len(train["rcnn"])):
        width = train["rpn_proposal"]["max_per_img"] if stage == 0 else samples
        draw = np.full((batch, count + width), 0.9, np.float32)
        for i in range(batch):
            chosen = np.concatenate([reference[f"{case}/s{stage}.img{i}.{kind}"] for kind in ("pos", "neg")])
            draw[i, _own_index(reference, case, stage, i, chosen, len(boxes[i]), count)] = 0.1
        draws.append(Tensor(draw))
    sizes = Tensor(image_sizes("detector")[0])
    # Full-size bitmaps in place of crops, for ``FullMaskTargets``, which reads no frames.
    ground_truth = (Tensor(gt), Tensor(labels), Tensor(valid), Tensor(masks), Tensor(gt))
    rpn = tuple(Tensor(np.stack(values)) for values in zip(*targets, strict=True))
    return Tensor(images), sizes, *ground_truth, *rpn, *draws


def _rpn_targets(reference, case: str, image: int, count: int) -> tuple[np.ndarray, ...]:
    prefix = f"{case}/rpn.img{image}"
    positive, negative = reference[f"{prefix}.pos"], reference[f"{prefix}.neg"]
    total, slots = len(positive) + len(negative), np.arange(count)
    indices, deltas = np.zeros(count, np.int32), np.zeros((count, 4), np.float32)
    indices[:total] = np.concatenate([positive, negative])
    deltas[: len(positive)] = reference[f"{prefix}.pos_target"]
    return indices, (slots < len(positive)).astype(np.float32), (slots < total).astype(np.float32), deltas


def _own_index(reference, case: str, stage: int, image: int, chosen: np.ndarray, boxes: int, count: int) -> np.ndarray:
    """mmdetection's index into [gt boxes, proposals] as one into [padded gt boxes, slots of the stage before]."""
    slots = np.arange(10**4)
    if stage > 0:
        before = f"{case}/s{stage - 1}.img{image}"
        is_gt = reference[f"{before}.pos_is_gt"].astype(bool)
        kept = np.concatenate([~is_gt, np.ones(len(reference[f"{before}.neg"]), bool)])
        slots = np.flatnonzero(kept)
    return np.where(chosen < boxes, chosen, count + slots[np.maximum(chosen - boxes, 0)])
