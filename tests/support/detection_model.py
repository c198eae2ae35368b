"""The detector of the vectors with its parameters, and its gradients under mmdetection's names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from mindspore import Parameter, Tensor, nn

from msg_ms.checkpoint import parameters_by_name
from msg_ms.convert import convert_state_dict, export_state_dict
from msg_ms.convert.detection_rules import DETECTION_RULES
from msg_ms.models.detection.backbone import DetectionBackbone
from msg_ms.models.detection.cascade_rcnn import CascadeMaskRCNN
from msg_ms.models.detection.settings import DetectorSettings
from support.detection import TABLE, TOLERANCES, model_settings, vectors


def load(cell: nn.Cell, prefix: str = "") -> nn.Cell:
    """Set all parameters of the vectors whose names start with a prefix, in evaluation mode."""
    state = convert_state_dict(vectors("params").arrays, rules=DETECTION_RULES)
    chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    parameters = parameters_by_name(cell.get_parameters())
    assert set(parameters) == set(chosen)
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
        region_samples=sampler["num"],
        region_positives=int(sampler["num"] * sampler["pos_fraction"]),
        stage_ious=tuple(stage["assigner"]["pos_iou_thr"] for stage in train["rcnn"]),
        stage_weights=tuple(roi["stage_loss_weights"]),
        box_loss_weight=box["loss_bbox"]["loss_weight"],
    )
    assert mask["conv_out_channels"] == box["conv_out_channels"] == model["neck"]["out_channels"]
    return load(CascadeMaskRCNN(backbone(), DetectorSettings(**{**settings, **changes})))


def image_sizes(group: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height and width without padding, height and width of the originals, and scale factors of the vectors' images."""
    metas = vectors(group).description["img_metas"]
    shapes = [np.array([meta[key][:2] for meta in metas], np.float32) for key in ("img_shape", "ori_shape")]
    return (*shapes, np.array([meta["scale_factor"] for meta in metas], np.float32))
