"""The tasks, and the keys that only one of them reads: another refuses values other than their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ..errors import UserError, shorten
from .checks import Check

ENTRY_POINTS = "msg_ms.tasks"  # group of the entry points by which installed packages add tasks

# Sections end in a dot.
TASK_KEYS = {
    "classification": (
        *("AUG.", "TEST.", "MODEL.LABEL_SMOOTHING"),
        *("DATA.IMG_SIZE", "DATA.INTERPOLATION", "DATA.CLASS_INDEX", "DATA.VAL_LIST"),
        "DATA.NORMALIZE_ON_DEVICE",
    ),
    "detection": ("DETECTION.", "MODEL.RCNN."),
}


def installed_tasks() -> dict[str, EntryPoint]:
    """Return the tasks that installed packages add, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


KNOWN_TASK = Check(
    f"one of {', '.join(map(repr, TASK_KEYS))}, or a task of an installed package (entry point {ENTRY_POINTS})",
    lambda name: name in TASK_KEYS or name in installed_tasks(),
)


def check_task_keys(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check that the keys of other tasks have their defaults; a task of another package may read all keys.

    Args:
        values: The value of every key.
        defaults: Their defaults.

    Raises:
        UserError: If one has another value.
    """
    task = values["TASK"]
    if task not in TASK_KEYS:
        return
    for other, names in TASK_KEYS.items():
        foreign = [
            f"{key}={value!r}"
            for key, value in values.items()
            if other != task
            and value != defaults[key]
            and any(key == name or (name.endswith(".") and key.startswith(name)) for name in names)
        ]
        if foreign:
            remove = "remove it" if len(foreign) == 1 else "remove them"
            raise UserError(f"TASK={task} does not use {shorten(foreign)}: {remove}, or set TASK to {other}")
