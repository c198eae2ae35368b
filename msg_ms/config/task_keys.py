"""Keys that only one task reads: another task refuses values other than their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError, shorten

# Sections end in a dot.
TASK_KEYS = {
    "classification": (
        *("AUG.", "TEST.", "MODEL.LABEL_SMOOTHING"),
        *("DATA.IMG_SIZE", "DATA.INTERPOLATION", "DATA.CLASS_INDEX", "DATA.VAL_LIST"),
        "DATA.NORMALIZE_ON_DEVICE",
    ),
    "detection": ("DETECTION.", "MODEL.RCNN."),
}


def check_task_keys(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Check that the keys of other tasks have their defaults.

    Args:
        values: The value of every key.
        defaults: Their defaults.

    Raises:
        UserError: If one has another value.
    """
    task = values["TASK"]
    for other, names in TASK_KEYS.items():
        foreign = [
            f"{key}={value!r}"
            for key, value in values.items()
            if other != task
            and value != defaults[key]
            and any(key == n or (n[-1] == "." and key.startswith(n)) for n in names)
        ]
        if foreign:
            remove = "remove it" if len(foreign) == 1 else "remove them"
            raise UserError(f"TASK={task} does not use {shorten(foreign)}: {remove}, or set TASK to {other}")


def _is_in(key: str, name: str) -> bool:
    return key == name or (name.endswith(".") and key.startswith(name))
