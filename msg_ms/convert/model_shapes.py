"""The model that weights must fit, and their adaptation to other classes, windows and image sizes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from mindspore import Parameter
from mindspore.nn.utils import no_init_parameters

from ..checkpoint.dtypes import cast
from ..checkpoint.resize import BIAS_TABLE, HEAD, POSITIONS, adapt_weights
from ..config import load_config
from ..errors import UserError
from ..models.build import build_model
from ..models.msg_transformer import MSGTransformer
from ..ops import use_backend
from .names import State, check_names_and_shapes, infer_architecture, variant_name

HEAD_DEVIATION = 0.02


@dataclass(frozen=True)
class Changes:
    """What the result is to have otherwise than the file; None leaves it."""

    num_classes: int | None = None
    img_size: int | None = None
    window_size: int | None = None

    def __post_init__(self):
        for name, least, most in (("num_classes", 0, 10_000_000), ("img_size", 1, 8192), ("window_size", 1, 64)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be from {least} to {most}")

    def given(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def concerns(self, name: str) -> bool:
        """Whether the parameter ``name`` of ours may differ in shape for them."""
        return (
            (self.num_classes is not None and name.startswith(HEAD))
            or (self.window_size is not None and name.endswith(BIAS_TABLE))
            or (self.img_size is not None and name == POSITIONS)
        )


def fit_weights(weights: State, cfg: str | None, changes: Changes, seed: int) -> tuple[str, State, list[str]]:
    """The model's name, the weights with the changes made in the model's order, and a line on each change.

    The model is that of the configuration file ``cfg``, with the changes, or recognised from the weights. A head for
    another number of classes is drawn anew: normal with deviation 0.02, bias zero, as the model's own initialisation.
    Raises ConversionError where anything but what ``changes`` names differs from that model.
    """
    name, expected = expected_parameters(weights, cfg, changes)
    wanted = {n: expected.get(n) if changes.concerns(n) else value.shape for n, value in weights.items()}
    adapted, lines = adapt_weights(weights, {n: shape for n, shape in wanted.items() if shape is not None})
    result = {n: cast(value, weights[n].dtype) for n, value in adapted.items()}
    new_head = [n for n in expected if n.startswith(HEAD) and n not in result and changes.num_classes]
    if new_head:
        kind, draws = next(iter(weights.values())).dtype, np.random.default_rng(seed)
        for n in new_head:
            shape = expected[n]
            value = HEAD_DEVIATION * draws.standard_normal(shape) if len(shape) > 1 else np.zeros(shape)
            result[n] = cast(value.astype(np.float32), kind)
        lines.append(f"the new head is drawn with seed {seed}: it must be trained")
    if changes.img_size is not None and POSITIONS not in expected:
        lines.append("--img-size changes no weight: without position embeddings the model takes any size that fits")
    check_names_and_shapes(result, expected)
    return name, {n: result[n] for n in expected}, lines


def expected_parameters(
    weights: State, cfg: str | None, changes: Changes = Changes()
) -> tuple[str, dict[str, tuple[int, ...]]]:
    """The model's name and its parameters' shapes, from the configuration or recognised from the weights."""
    given = changes.given()
    # Only names and shapes are wanted: no values, and no kernels, whose compilation would take half a minute.
    with no_init_parameters(), use_backend("composed"):
        if cfg is not None:
            return _of_configuration(cfg, given)
        found = infer_architecture(weights)
        name, depths = variant_name(found), found["depths"]
        if not found["ape"] and "window_size" in given and "img_size" not in given:
            found["img_size"] = found["img_size"] // found["window_size"] * given["window_size"]
        found |= given
        # Blocks of a stage are alike, and how many there are is for a file to claim: one of each is built.
        model = MSGTransformer(**{**found, "depths": (1,) * len(depths)})
    shapes = {}
    for stage, parameters in itertools.groupby(model.get_parameters(), _stage_of_block):
        parameters = list(parameters)
        for i in range(1 if stage is None else depths[stage]):
            shapes |= {p.name.replace(".blocks.0.", f".blocks.{i}."): tuple(p.shape) for p in parameters}
    return name, shapes


def _stage_of_block(parameter: Parameter) -> int | None:
    found = re.match(r"layers\.(\d+)\.blocks\.0\.", parameter.name)
    return int(found[1]) if found else None


def _of_configuration(cfg: str, given: Mapping[str, int]) -> tuple[str, dict[str, tuple[int, ...]]]:
    config = load_config(cfg)
    section = replace(
        config.model,
        num_classes=given.get("num_classes", config.model.num_classes),
        msg=replace(config.model.msg, window_size=given.get("window_size", config.model.msg.window_size)),
    )
    model = build_model(section, given.get("img_size", config.data.img_size))
    return section.name, {parameter.name: tuple(parameter.shape) for parameter in model.get_parameters()}
