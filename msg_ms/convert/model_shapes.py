"""Find the model that weights belong to, and adapt them to other classes, windows and image sizes."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from mindspore import Parameter
from mindspore.nn.utils import no_init_parameters

from ..checkpoint.dtypes import cast
from ..checkpoint.resize import POSITIONS, adapt_weights, is_bias_table, is_head, is_position_embedding
from ..checkpoint.types import Arrays, ConversionError, check_arrays
from ..config import load_config
from ..errors import UserError, shown
from ..models.build import build_model
from ..models.msg_transformer import MSGTransformer
from ..models.variants import VARIANTS
from ..ops import use_backend
from .names import check_names_and_shapes

HEAD_DEVIATION = 0.02
# Limits on the sizes that a file's shapes alone may claim; a user's configuration may be larger.
LARGEST = {"stages": 8, "embed_dim": 4096, "window_size": 32, "shuffle_size": 64}


@dataclass(frozen=True)
class Changes:
    """Sizes that the result should have; None keeps the file's."""

    num_classes: int | None = None
    img_size: int | None = None
    window_size: int | None = None

    def __post_init__(self):
        for name, least, most in (("num_classes", 0, 10_000_000), ("img_size", 1, 8192), ("window_size", 1, 64)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"--{name.replace('_', '-')} {value}: must be from {least} to {most}")

    def requested(self) -> dict[str, int]:
        """Return the sizes that are not None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def may_affect(self, name: str) -> bool:
        """Return whether these changes may affect the shape of our parameter ``name``."""
        return (
            (self.num_classes is not None and is_head(name))
            or (self.window_size is not None and is_bias_table(name))
            or (self.img_size is not None and is_position_embedding(name))
        )


def infer_architecture(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Infer a model's constructor arguments from its parameters.

    Some arguments do not affect the parameters: the image size without ``ape``, region sizes after the first stage,
    ``manip_type``, ``qk_scale`` and the dropout rates. These are set to values that fit.

    Args:
        state: Arrays by our names.

    Returns:
        Arguments of ``msg_ms.MSGTransformer``.

    Raises:
        ConversionError: If the shapes fit no such model, or one larger than ``LARGEST``.
    """
    check_arrays("state", state)
    blocks = {m.groups() for m in (re.match(r"layers\.(\d{1,4})\.blocks\.(\d{1,4})\.", name) for name in state) if m}
    depths = Counter(int(stage) for stage, _ in blocks)
    stages = range(len(depths))
    try:
        msg_tokens, patch = state["msg_tokens"].shape, state["patch_embed.proj.weight"].shape
        first = "layers.0.blocks.0"
        tables = [state[f"layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in stages]
        window = (math.isqrt(tables[0][0]) + 1) // 2
        region = math.isqrt(msg_tokens[1])
        positions = state[POSITIONS].shape[1] if POSITIONS in state else None
        # A later stage has the smaller of the first region and the windows that remain after merging.
        regions = tuple(max(1, region // 2**i) for i in stages)
        _check_limits(stages=len(depths), embed_dim=patch[0], window_size=window, shuffle_size=region)
        smallest = 4 * window * math.lcm(*(2**i * r for i, r in zip(stages, regions, strict=True)))
        return {
            "img_size": smallest if positions is None else 4 * math.isqrt(positions),
            "in_chans": patch[1],
            "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
            "embed_dim": patch[0],
            "depths": tuple(depths[i] for i in stages),
            "num_heads": tuple(table[1] for table in tables),
            "window_size": window,
            "mlp_ratio": state[f"{first}.mlp.fc1.weight"].shape[0] / patch[0],
            "qkv_bias": f"{first}.attn.qkv.bias" in state,
            "ape": positions is not None,
            "patch_norm": "patch_embed.norm.gamma" in state,
            "shuffle_size": regions,
            "manip_type": "none",
        }
    except (KeyError, IndexError, ZeroDivisionError, TypeError) as error:
        raise ConversionError(
            f"not an MSG-Transformer: a parameter is missing or has a wrong shape ({error})"
        ) from None


def _check_limits(**sizes: int) -> None:
    # The model is built for comparison, and its memory and time grow with powers of these sizes.
    for name, value in sizes.items():
        if value > LARGEST[name]:
            raise ConversionError(f"the shapes imply {name}={value}; without --cfg at most {LARGEST[name]} is accepted")


def variant_name(architecture: Mapping[str, Any]) -> str:
    """Return the name of the paper's variant with these sizes, or a description of the sizes.

    Args:
        architecture: The result of ``infer_architecture``.

    Raises:
        UserError: If it lacks a size.
    """
    sizes_of_names = ("embed_dim", "depths", "num_heads", "window_size")
    if not isinstance(architecture, Mapping) or not all(name in architecture for name in sizes_of_names):
        raise UserError(f"architecture={shown(architecture)}: must be the result of infer_architecture")
    for name, sizes in VARIANTS.items():
        if all(architecture[k] == v for k, v in sizes.items() if k != "drop_path_rate"):
            return name
    return "a custom model (" + ", ".join(f"{k}={architecture[k]}" for k in sizes_of_names) + ")"


def expected_parameters(
    weights: Arrays, cfg: str | None, changes: Changes = Changes()
) -> tuple[str, dict[str, tuple[int, ...]]]:
    """Find the model that weights should fit.

    Args:
        weights: Arrays by our names.
        cfg: Configuration file of the model; None infers the model from the weights.
        changes: Requested sizes, which replace those of the model.

    Returns:
        The model's name, and the shapes of its parameters by name.
    """
    requested = changes.requested()
    # Only names and shapes are needed: skip the initial values, and the kernels, which compile for half a minute.
    with no_init_parameters(), use_backend("composed"):
        if cfg is not None:
            return _parameters_of_configuration(cfg, requested)
        arguments = infer_architecture(weights)
        name, depths = variant_name(arguments), arguments["depths"]
        if not arguments["ape"] and "window_size" in requested and "img_size" not in requested:
            arguments["img_size"] = arguments["img_size"] // arguments["window_size"] * requested["window_size"]
        arguments |= requested
        # A file may claim any number of blocks. The blocks of a stage are alike, so build one of each.
        model = MSGTransformer(**{**arguments, "depths": (1,) * len(depths)})
    shapes: dict[str, tuple[int, ...]] = {}
    for stage, group in itertools.groupby(model.get_parameters(), _stage_of_block):
        parameters = list(group)
        for i in range(1 if stage is None else depths[stage]):
            shapes |= {p.name.replace(".blocks.0.", f".blocks.{i}."): tuple(p.shape) for p in parameters}
    return name, shapes


def _stage_of_block(parameter: Parameter) -> int | None:
    matched = re.match(r"layers\.(\d+)\.blocks\.0\.", parameter.name)
    return int(matched[1]) if matched else None


def _parameters_of_configuration(cfg: str, requested: Mapping[str, int]) -> tuple[str, dict[str, tuple[int, ...]]]:
    config = load_config(cfg)
    section = replace(
        config.model,
        num_classes=requested.get("num_classes", config.model.num_classes),
        msg=replace(config.model.msg, window_size=requested.get("window_size", config.model.msg.window_size)),
    )
    model = build_model(section, requested.get("img_size", config.data.img_size))
    return section.name, {parameter.name: tuple(parameter.shape) for parameter in model.get_parameters()}


def fit_weights(weights: Arrays, cfg: str | None, changes: Changes, seed: int) -> tuple[str, Arrays, list[str]]:
    """Adapt weights to the requested sizes, and check them against the model.

    A new classification head is initialised as in the model: weights normal with deviation 0.02, biases zero.

    Args:
        weights: Arrays by our names.
        cfg: Configuration file of the model; None infers the model from the weights.
        changes: Requested sizes.
        seed: Seed of a new classification head.

    Returns:
        The model's name, the adapted weights in the model's order, and a line for each change.

    Raises:
        ConversionError: If a name or shape differs from the model and ``changes`` does not explain it.
    """
    name, expected = expected_parameters(weights, cfg, changes)
    shapes = {n: expected.get(n) if changes.may_affect(n) else value.shape for n, value in weights.items()}
    adapted, lines = adapt_weights(weights, {n: shape for n, shape in shapes.items() if shape is not None})
    result = {n: cast(value, weights[n].dtype) for n, value in adapted.items()}
    new_head = [n for n in expected if is_head(n) and n not in result and changes.num_classes]
    if new_head:
        dtype, random = next(iter(weights.values())).dtype, np.random.default_rng(seed)
        for n in new_head:
            shape = expected[n]
            value = HEAD_DEVIATION * random.standard_normal(shape) if len(shape) > 1 else np.zeros(shape)
            result[n] = cast(value.astype(np.float32), dtype)
        lines.append(f"classification head initialised with seed {seed}; train it before use")
    if changes.img_size is not None and POSITIONS not in expected:
        lines.append("--img-size has no effect: without position embeddings the model accepts any size that fits")
    check_names_and_shapes(result, expected)
    return name, {n: result[n] for n in expected}, lines
