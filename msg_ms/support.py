"""What the paper's configuration files can ask for and this version does not do: refused."""

from __future__ import annotations

from .config import Config
from .errors import UserError


def check_supported(config: Config) -> None:
    """Raise UserError for a setting whose absence would change the result in silence."""
    if config.amp_opt_level not in ("", "O0"):
        raise UserError(f"AMP_OPT_LEVEL={config.amp_opt_level}: mixed precision is not there yet; use O0")
    if config.train.use_checkpoint:
        raise UserError("TRAIN.USE_CHECKPOINT=True: gradient checkpointing is not there yet; use False")
    if config.model.msg.in_chans != 3:
        raise UserError(f"MODEL.MSG.IN_CHANS={config.model.msg.in_chans}: image folders give 3 channels")
