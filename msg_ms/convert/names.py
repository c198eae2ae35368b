"""Apply the name table strictly, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..checkpoint.dtypes import cast, same_values
from ..checkpoint.types import Arrays, ConversionError, check_arrays, check_shapes
from ..errors import UserError, nearest, shorten, shown
from .rules import RULES, Drop, Rule, match


def convert_state_dict(
    state: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]] | None = None,
    rules: Sequence[Rule | Drop] = RULES,
) -> Arrays:
    """Rename PyTorch's parameters to ours. Values are not changed, so gradients convert like weights.

    Args:
        state: Arrays by PyTorch's names.
        expected: Shapes by our names. If given, every name and shape must match.
        rules: The name table.

    Returns:
        The same arrays by our names, without the buffers that have a ``msg_ms.convert.rules.Drop`` rule.

    Raises:
        ConversionError: If a name has no rule, two names become the same, or ``expected`` differs. The message lists
            all such names.
    """
    _check(rules, state=state)
    if expected is not None:
        check_shapes("expected", expected)
    result: Arrays = {}
    sources: dict[str, list[str]] = {}
    unknown = []
    for name, value in state.items():
        rule, numbers = _find_rule(rules, "torch", name)
        if rule is None:
            unknown.append(name)
        elif isinstance(rule, Rule):
            target = rule.ours.format(**numbers)
            sources.setdefault(target, []).append(name)
            result[target] = value
    duplicates = [f"{target} from {' and '.join(names)}" for target, names in sources.items() if len(names) > 1]
    _raise_mismatch(unknown, duplicates, result, expected)
    return result


def export_state_dict(
    state: Mapping[str, np.ndarray], buffers: bool = True, rules: Sequence[Rule | Drop] = RULES
) -> Arrays:
    """Rename our parameters to PyTorch's. Values are not changed.

    The paper's code loads the result with ``strict=True``.

    Args:
        state: Arrays by our names.
        buffers: Whether to rebuild the buffers that we do not store. Pass False for gradients.
        rules: The name table.

    Returns:
        The same arrays by PyTorch's names, and the buffers.

    Raises:
        ConversionError: If a name has no rule or two names become the same. The message lists all such names.
    """
    _check(rules, state=state)
    if not isinstance(buffers, bool):
        raise UserError(f"buffers={shown(buffers)}: must be True or False")
    result: Arrays = {}
    unknown, duplicates = [], []
    for name, value in state.items():
        rule, numbers = _find_rule(rules, "ours", name)
        if rule is None:
            unknown.append(name)
            continue
        target = rule.torch.format(**numbers)
        if target in result:
            duplicates.append(f"{target} from {name} and another")
        result[target] = value
        if buffers:
            for drop in (r for r in rules if isinstance(r, Drop)):
                of_drop = match(drop.source, name)
                if of_drop is not None:
                    result[drop.torch.format(**of_drop)] = drop.rebuild(value)
    _raise_mismatch(unknown, duplicates, result, None)
    return result


def converts(state: Mapping[str, np.ndarray], side: str, rules: Sequence[Rule | Drop] = RULES) -> bool:
    """Return whether every name has a rule.

    Args:
        state: Arrays by name.
        side: ``"torch"`` to read the names as PyTorch's, ``"ours"`` as this package's.
        rules: The name table.
    """
    _check(rules, state=state)
    if not isinstance(side, str) or side not in ("torch", "ours"):
        raise UserError(f"side={shown(side)}: must be 'torch' or 'ours'")
    return all(_find_rule(rules, side, name)[0] is not None for name in state)


def dropped_names(state: Mapping[str, np.ndarray], rules: Sequence[Rule | Drop] = RULES) -> dict[str, str]:
    """Return the PyTorch names that are left out, each with the reason.

    Args:
        state: Arrays by PyTorch's names.
        rules: The name table.
    """
    _check(rules, state=state)
    matched = {name: _find_rule(rules, "torch", name)[0] for name in state}
    return {name: rule.reason for name, rule in matched.items() if isinstance(rule, Drop)}


def check_buffers(
    state: Mapping[str, np.ndarray], converted: Mapping[str, np.ndarray], rules: Sequence[Rule | Drop] = RULES
) -> None:
    """Check that each buffer that is left out equals the one that would be rebuilt.

    Args:
        state: Arrays by PyTorch's names.
        converted: The result of ``convert_state_dict`` for them.
        rules: The name table.

    Raises:
        ConversionError: If a buffer differs.
    """
    _check(rules, state=state, converted=converted)
    for name, value in converted.items():
        for drop in (rule for rule in rules if isinstance(rule, Drop) and rule.compare):
            numbers = match(drop.source, name)
            if numbers is None or (buffer := state.get(drop.torch.format(**numbers))) is None:
                continue
            # Compare the shape first: a small table must not cause a huge buffer to be built.
            # In a model that was cast as a whole the index is rounded to half precision too.
            if buffer.shape != drop.shape(value) or not same_values(buffer, cast(drop.rebuild(value), buffer.dtype)):
                raise ConversionError(f"{drop.torch.format(**numbers)} differs from the value {drop.reason}")


def check_names_and_shapes(weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Check weights against a model.

    Args:
        weights: Arrays by our names.
        expected: Shapes of the model's parameters by name.

    Raises:
        ConversionError: If names or shapes differ; the message lists all differences.
    """
    check_arrays("weights", weights)
    check_shapes("expected", expected)
    _raise_mismatch([], [], weights, expected)


def _check(rules: Any, **arrays: Any) -> None:
    """Raise UserError unless arguments are dictionaries of arrays, and ``rules`` is a name table."""
    for name, value in arrays.items():
        check_arrays(name, value)
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, Rule | Drop) for rule in rules):
        raise UserError(f"rules={shown(rules)}: must be a list of Rule and Drop")


def _find_rule(rules: Sequence[Rule | Drop], side: str, name: str) -> tuple[Rule | Drop | None, dict[str, str]]:
    """Return the first rule whose template on ``side`` matches ``name``, and the numbers in the name."""
    for rule in rules:
        template = getattr(rule, side, None)
        numbers = None if template is None else match(template, name)
        if numbers is not None:
            return rule, numbers
    return None, {}


def _raise_mismatch(
    unknown: list[str],
    duplicates: list[str],
    result: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]] | None,
) -> None:
    expected = {name: value.shape for name, value in result.items()} if expected is None else expected
    missing = [name for name in expected if name not in result]
    surplus = [name for name in result if name not in expected]
    # Only for those that are shown: the search is slow for a file with thousands of names.
    surplus[:5] = [f"{name}{nearest(name, missing[:500])}" for name in surplus[:5]]
    wrong_shape = [
        f"{name} is {tuple(value.shape)}, expected {tuple(expected[name])}"
        for name, value in result.items()
        if name in expected and tuple(value.shape) != tuple(expected[name])
    ]
    problems = {
        "no rule for": unknown,
        "duplicates": duplicates,
        "missing": missing,
        "the model has no": surplus,
        "wrong shape": wrong_shape,
    }
    lists = [f"{problem}: {shorten(names)}" for problem, names in problems.items() if names]
    if lists:
        raise ConversionError("; ".join(lists))
