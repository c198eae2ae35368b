"""Parts of a model that are not trained: no gradient, no optimizer state, and evaluation mode."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from mindspore import Parameter, nn

from ..errors import UserError, nearest
from .layer_decay import STEM

BACKBONE, BACKBONE_PREFIX, HEAD_PREFIX = "backbone", "backbone.", "head."


def freeze(model: nn.Cell, entries: Sequence[str]) -> list[Parameter]:
    """Exclude parts of a model from training, in place.

    Frozen parameters have no gradient. Cells whose parameters are all frozen stay in evaluation mode once
    ``set_training`` is used in place of ``set_train``: no dropout, no stochastic depth, and batch normalisation by its
    own statistics.

    Args:
        model: A classifier, or a detector.
        entries: For each part a number, a name or a pattern. A number n means the patch embedding and the first n
            stages of the backbone, as ``frozen_stages`` of mmdetection. "backbone" means everything but a classifier's
            head. Other names are those of parameters or of Cells, with ``*`` as in a shell: ``layers.*.attn``.

    Returns:
        The frozen parameters that would be trained otherwise.

    Raises:
        UserError: If an entry matches nothing, or nothing is left to train.
    """
    trained = {parameter.name: parameter for parameter in model.trainable_params()}
    chosen: set[str] = set()
    for entry in entries:
        chosen.update(_matching(entry, list(trained), hasattr(model, BACKBONE)))
    if chosen and len(chosen) == len(trained):
        raise UserError(f"TRAIN.FREEZE={list(entries)}: nothing is left to train")
    for name in chosen:
        trained[name].requires_grad = False
    _mark(model, set(trained), chosen)
    return [trained[name] for name in trained if name in chosen]


def set_training(cell: nn.Cell) -> None:
    """Set a Cell to training mode, except the frozen Cells in it."""
    cell.set_train(True)
    for _, inner in cell.cells_and_names():
        if getattr(inner, "frozen", False):
            inner.set_train(False)


def moving_statistics(model: nn.Cell, frozen: Sequence[Parameter]) -> list[Parameter]:
    """Return the parameters that training changes without a gradient, such as a normalisation's statistics.

    Args:
        model: The model.
        frozen: The result of ``freeze``.
    """
    cells = (cell for _, cell in model.cells_and_names() if getattr(cell, "frozen", False))
    still = {id(parameter) for cell in cells for parameter in cell.get_parameters()} | {id(p) for p in frozen}
    return [p for p in model.get_parameters() if not p.requires_grad and id(p) not in still]


def _matching(entry: str, names: Sequence[str], is_detector: bool) -> list[str]:
    """Return the names that an entry matches; raise UserError if there are none."""
    prefix = BACKBONE_PREFIX if is_detector else ""
    if re.fullmatch(r"\d+", entry):
        stages = {name.split(".")[prefix.count(".") + 1] for name in names if name.startswith(f"{prefix}layers.")}
        if int(entry) > len(stages):
            raise UserError(f"TRAIN.FREEZE={entry}: the backbone has {len(stages)} stages")
        patterns = [f"{prefix}{part}" for part in (*STEM, *(f"layers.{i}" for i in range(int(entry))))]
        if is_detector:
            patterns += [f"{prefix}norm{i}" for i in range(int(entry))]
    elif entry == BACKBONE and not is_detector:
        return [name for name in names if not name.startswith(HEAD_PREFIX)]
    else:
        patterns = [entry]
    found = [n for n in names if any(fnmatchcase(n, p) or fnmatchcase(n, f"{p}.*") for p in patterns)]
    if not found:
        paths = {".".join(parts[:i]) for parts in (n.split(".") for n in names) for i in range(1, len(parts) + 1)}
        raise UserError(f"TRAIN.FREEZE={entry}: no parameter has such a name{nearest(entry, {*paths, BACKBONE})}")
    return found


def _mark(model: nn.Cell, trained: set[str], chosen: set[str]) -> None:
    """Set the attribute ``frozen`` of the Cells whose parameters are all frozen, and of the dropout before them."""
    cells = [cell for _, cell in model.cells_and_names()]
    for cell in cells:
        cell.frozen = _all_frozen(cell, trained, chosen)
    for cell in cells:
        if hasattr(cell, "patch_embed") and hasattr(cell, "drop_path"):  # a backbone
            cell.pos_drop.frozen = cell.patch_embed.frozen
            cell.drop_path.keep([block.frozen for stage in cell.layers for block in stage.blocks])


def _all_frozen(cell: nn.Cell, trained: set[str], chosen: set[str]) -> bool:
    own = {parameter.name for parameter in cell.get_parameters()} & trained
    return bool(own) and own <= chosen
