"""Checkpoints in several files: an index in JSON, ``X.safetensors.index.json``, names each weight's file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..checkpoint.select import select_weights, unwrap
from ..checkpoint.types import BrokenCheckpoint, LoadedWeights
from ..errors import UserError, printable, shorten, shown

INDEX_SUFFIX = ".index.json"
_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_MAX_INDEX_SIZE = 16 << 20


def is_index(path: Path) -> bool:
    """Return whether a file is the index of a checkpoint in several files, by its name."""
    return path.name.endswith(INDEX_SUFFIX)


def index_of_part(path: Path) -> Path | None:
    """Return the index that belongs to a file with a part of the weights, by its name; None for other files."""
    matched = _PART.fullmatch(path.name)
    if matched is None or int(matched["count"]) < 2:
        return None
    return path.with_name(f"{matched['stem']}{matched['suffix']}{INDEX_SUFFIX}")


def read_parts(path: Path, key: str | None, read: Callable[[Path, str | None], LoadedWeights]) -> LoadedWeights:
    """Read the weights of all files that an index names.

    Args:
        path: The index.
        key: Location of the weights, see ``msg_ms.checkpoint.select.select_weights``.
        read: Reads one file with a part of the weights.

    Raises:
        BrokenCheckpoint: If the index is damaged, or its files do not hold the weights that it names.
        UserError: If a file is missing or unreadable, or ``key`` does not exist.
    """
    files: dict[str, list[str]] = {}
    for name, file in _weight_map(path).items():
        files.setdefault(file, []).append(name)
    missing = [file for file in files if not (path.parent / file).is_file()]
    if missing:
        raise UserError(f"{path}: {len(missing)} of its {len(files)} files are missing: {shorten(missing)}")
    state: dict[str, np.ndarray] = {}
    ignored: set[str] = set()
    for file, names in files.items():
        part = read(path.parent / file, None)
        different = sorted(unwrap(dict.fromkeys(names)).keys() ^ part.state.keys())
        if different:
            raise BrokenCheckpoint(f"{path}: {file} and the index differ in {printable(shorten(different))}")
        state |= part.state
        ignored |= set(part.ignored)
    try:
        weights = select_weights(state, key, lambda value: isinstance(value, np.ndarray))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return LoadedWeights(state, weights, tuple(sorted(ignored)))


def part_files(path: Path) -> set[Path]:
    """Return the files that an index names; none if it can't be read."""
    try:
        return {path.parent / file for file in _weight_map(path).values()}
    except UserError:
        return set()


def _weight_map(path: Path) -> dict[str, str]:
    """Return the file name of each weight."""
    try:
        if path.stat().st_size > _MAX_INDEX_SIZE:
            raise BrokenCheckpoint(f"{path}: larger than {_MAX_INDEX_SIZE >> 20} MB, so not an index of weights")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BrokenCheckpoint(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise BrokenCheckpoint(f"{path}: damaged, or not an index of weights: it is not JSON") from None
    files = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        raise BrokenCheckpoint(f"{path}: damaged, or not an index of weights: it has no 'weight_map'")
    for file in files.values():
        if not isinstance(file, str) or file in ("", ".", "..") or re.search(r"[/\\\x00]", file):
            raise BrokenCheckpoint(f"{path}: weight_map: {shown(file)} is not a file name")
        if is_index(Path(file)):
            raise BrokenCheckpoint(f"{path}: weight_map: {printable(file, 100)} is an index, not a file of weights")
    return files
