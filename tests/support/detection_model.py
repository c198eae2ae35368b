"""The detector of the vectors with its parameters, and its gradients under mmdetection's names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from mindspore import Parameter, Tensor, nn

from msg_ms.checkpoint import parameters_by_name
from msg_ms.convert import convert_state_dict, export_state_dict
from msg_ms.convert.detection_rules import DETECTION_RULES
from msg_ms.models.detection.backbone import DetectionBackbone
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
    """Compare a gradient, of which the vectors hold every ``step``-th value, the norm and two sums."""
    reference = vectors(group)
    about, gradient = reference.description["arrays"][key], gradient.asnumpy().ravel()
    TABLE.check(
        f"{group} {key.split('/grad/')[0]} gradients",
        gradient[:: about.get("step", 1)],
        reference[key].ravel(),
        "gradient",
    )
    if "sums" in about:
        norm = np.linalg.norm(gradient.astype(np.float64))
        assert abs(norm - about["sums"][1]) <= TOLERANCES["gradient"] * max(about["sums"][1], 1e-12), key
