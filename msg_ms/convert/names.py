"""Apply the name table strictly, and recognise the model that a checkpoint holds."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checkpoint.dtypes import cast, same_values
from ..checkpoint.types import Arrays as State
from ..checkpoint.types import ConversionError
from ..errors import nearest, shorten
from ..models.variants import VARIANTS
from .rules import RULES, Drop, Rule, match

# What a file alone may claim of its model; a configuration of the user's may be larger.
LARGEST = {"stages": 8, "embed_dim": 4096, "window_size": 32, "shuffle_size": 64}


def convert_state_dict(
    state: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]] | None = None,
    rules: Sequence[Rule | Drop] = RULES,
) -> State:
    """PyTorch names to ours; values are passed on untouched, so gradients convert as weights do.

    ``expected`` gives our names with their shapes: then nothing may be missing, additional or misshapen.
    Raises :class:`ConversionError` with all names that no rule takes, that two rules give, and so on.
    """
    result: State = {}
    sources: dict[str, list[str]] = {}
    unknown = []
    for name, value in state.items():
        rule, numbers = _find(rules, "torch", name)
        if rule is None:
            unknown.append(name)
        elif isinstance(rule, Rule):
            target = rule.ours.format(**numbers)
            sources.setdefault(target, []).append(name)
            result[target] = value
    twice = [f"{target} from {' and '.join(names)}" for target, names in sources.items() if len(names) > 1]
    _raise_mismatch(unknown, twice, result, expected)
    return result


def export_state_dict(
    state: Mapping[str, np.ndarray], buffers: bool = True, rules: Sequence[Rule | Drop] = RULES
) -> State:
    """Our names to PyTorch's, values untouched; with ``buffers``, the dropped buffers are rebuilt as well.

    The result loads into the paper's code with ``strict=True``. Pass ``buffers=False`` for gradients.
    """
    result: State = {}
    unknown, twice = [], []
    for name, value in state.items():
        rule, numbers = _find(rules, "ours", name)
        if rule is None:
            unknown.append(name)
            continue
        target = rule.torch.format(**numbers)
        if target in result:
            twice.append(f"{target} from {name} and another")
        result[target] = value
        if buffers:
            for drop in (r for r in rules if isinstance(r, Drop)):
                numbers = match(drop.source, name)
                if numbers is not None:
                    result[drop.torch.format(**numbers)] = drop.rebuild(value)
    _raise_mismatch(unknown, twice, result, None)
    return result


def converts(state: Mapping[str, np.ndarray], side: str) -> bool:
    """Whether the table knows every name, read as those of ``side``: "torch" or "ours"."""
    return all(_find(RULES, side, name)[0] is not None for name in state)


def dropped_names(state: Mapping[str, np.ndarray]) -> dict[str, str]:
    """The PyTorch names that are left out on purpose, each with the reason."""
    found = {name: _find(RULES, "torch", name)[0] for name in state}
    return {name: rule.why for name, rule in found.items() if isinstance(rule, Drop)}


def check_buffers(state: Mapping[str, np.ndarray], converted: Mapping[str, np.ndarray]) -> None:
    """Raise ConversionError where a buffer that is left out is not what it is rebuilt as.

    ``state`` has PyTorch's names, ``converted`` is what :func:`convert_state_dict` made of it.
    """
    for name, value in converted.items():
        for drop in (rule for rule in RULES if isinstance(rule, Drop)):
            numbers = match(drop.source, name)
            buffer = None if numbers is None else state.get(drop.torch.format(**numbers))
            if buffer is None:
                continue
            # Rebuilt only where its size is right, so that a small table can't ask for a huge buffer.
            # A model cast as a whole has its index in half precision too, with what that rounds.
            if buffer.shape != drop.shape(value) or not same_values(buffer, cast(drop.rebuild(value), buffer.dtype)):
                raise ConversionError(f"{drop.torch.format(**numbers)} is not what {drop.why}")


def infer_architecture(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Constructor arguments of :class:`msg_ms.MSGTransformer` from our parameter names and shapes.

    What leaves no trace in the parameters (image size without ``ape``, region sizes after the first stage, message
    shuffle, qk scale, rates) is set to what fits. Raises ConversionError where the shapes make no such model, or one
    beyond :data:`LARGEST`.
    """
    blocks = {m.groups() for m in (re.match(r"layers\.(\d{1,4})\.blocks\.(\d{1,4})\.", name) for name in state) if m}
    depths = Counter(int(stage) for stage, _ in blocks)
    stages = range(len(depths))
    try:
        message, patch = state["msg_tokens"].shape, state["patch_embed.proj.weight"].shape
        first = "layers.0.blocks.0"
        tables = [state[f"layers.{i}.blocks.0.attn.relative_position_bias_table"].shape for i in stages]
        window = (math.isqrt(tables[0][0]) + 1) // 2
        region = math.isqrt(message[1])
        tokens = state["absolute_pos_embed"].shape[1] if "absolute_pos_embed" in state else None
        # Every later stage keeps the smaller of the first region and what is left of it after merging.
        regions = tuple(max(1, region // 2**i) for i in stages)
        _check_size(stages=len(depths), embed_dim=patch[0], window_size=window, shuffle_size=region)
        smallest = 4 * window * math.lcm(*(2**i * r for i, r in zip(stages, regions, strict=True)))
        return {
            "img_size": smallest if tokens is None else 4 * math.isqrt(tokens),
            "in_chans": patch[1],
            "num_classes": state["head.weight"].shape[0] if "head.weight" in state else 0,
            "embed_dim": patch[0],
            "depths": tuple(depths[i] for i in stages),
            "num_heads": tuple(table[1] for table in tables),
            "window_size": window,
            "mlp_ratio": state[f"{first}.mlp.fc1.weight"].shape[0] / patch[0],
            "qkv_bias": f"{first}.attn.qkv.bias" in state,
            "ape": tokens is not None,
            "patch_norm": "patch_embed.norm.gamma" in state,
            "shuffle_size": regions,
            "manip_type": "none",
        }
    except (KeyError, IndexError, ZeroDivisionError, TypeError) as error:
        raise ConversionError(f"no MSG-Transformer: its parameters are missing or misshapen at {error}") from None


def _check_size(**sizes: int) -> None:
    # The model is built to compare with, and its parts grow with powers of these.
    for name, value in sizes.items():
        if value > LARGEST[name]:
            raise ConversionError(f"{name}={value} by its shapes, at most {LARGEST[name]} is taken without --cfg")


def variant_name(architecture: Mapping[str, Any]) -> str:
    """The name of the paper's variant with these sizes, or a description of them."""
    for name, sizes in VARIANTS.items():
        if all(architecture[k] == v for k, v in sizes.items() if k != "drop_path_rate"):
            return name
    shown = ("embed_dim", "depths", "num_heads", "window_size")
    return "a custom model (" + ", ".join(f"{k}={architecture[k]}" for k in shown) + ")"


def _find(rules: Sequence[Rule | Drop], side: str, name: str) -> tuple[Rule | Drop | None, dict[str, str]]:
    """The first rule whose template on ``side`` ("torch" or "ours") fits ``name``, and the numbers in it."""
    for rule in rules:
        template = getattr(rule, side, None)
        numbers = None if template is None else match(template, name)
        if numbers is not None:
            return rule, numbers
    return None, {}


def check_names_and_shapes(weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ConversionError with everything in which our names and shapes differ from ``expected``."""
    _raise_mismatch([], [], weights, expected)


def _raise_mismatch(
    unknown: list[str],
    twice: list[str],
    result: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]] | None,
) -> None:
    expected = {name: value.shape for name, value in result.items()} if expected is None else expected
    missing = [name for name in expected if name not in result]
    surplus = [name for name in result if name not in expected]
    # Only for those that are shown: the search takes long where a file has thousands.
    surplus[:5] = [f"{name}{nearest(name, missing[:500])}" for name in surplus[:5]]
    misshapen = [
        f"{name} is {tuple(value.shape)}, expected {tuple(expected[name])}"
        for name, value in result.items()
        if name in expected and tuple(value.shape) != tuple(expected[name])
    ]
    problems = {
        "no rule takes": unknown,
        "two rules give": twice,
        "missing": missing,
        "the model has no": surplus,
        "shapes differ": misshapen,
    }
    found = [f"{what}: {shorten(names)}" for what, names in problems.items() if names]
    if found:
        raise ConversionError("; ".join(found))
