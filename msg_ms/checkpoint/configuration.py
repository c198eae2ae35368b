"""The configuration that a checkpoint stores, for everything that uses a checkpoint after training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config, StoredConfig, load_config
from ..errors import UserError
from .files import read_metadata

CONFIG_KEY = "config"  # in a checkpoint's metadata: the text of ``msg_ms.config.to_yaml``


def stored_config(path: Path, metadata: Mapping[str, Any] | None = None) -> StoredConfig | None:
    """Return the configuration that a checkpoint stores; None if it stores none, such as a converted one.

    Args:
        path: The checkpoint.
        metadata: Its metadata; None reads them.

    Raises:
        UserError: If the file can't be read.
    """
    metadata = read_metadata(path) if metadata is None else metadata
    text = metadata.get(CONFIG_KEY)
    return StoredConfig(text, str(path)) if isinstance(text, str) and text else None


def config_of_checkpoint(
    path: Path,
    cfg: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    opts: Sequence[str] = (),
    **overrides: Any,
) -> Config:
    """Return the configuration for the use of a checkpoint: its own, replaced by ``cfg``, ``opts`` and ``overrides``.

    Args:
        path: The checkpoint.
        cfg: A YAML file; its section ``MODEL`` must agree with the checkpoint. Required if the checkpoint stores none.
        opts: As of ``load_config``.
        overrides: As of ``load_config``.

    Raises:
        UserError: If the file can't be read, or there is no valid configuration, or two that contradict.
    """
    stored = stored_config(path)
    if stored is None and cfg is None:
        raise UserError(f"{path} stores no configuration, so --cfg is missing: name the YAML file of its model")
    return load_config(cfg, opts, stored, **overrides)
