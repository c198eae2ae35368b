"""What the paper's configuration files can ask for and this version does not do: refused."""

from __future__ import annotations

from .config import Config
from .errors import UserError


def check_supported(config: Config) -> None:
    """Raise UserError for a setting whose absence would change the result in silence."""
    if config.model.msg.in_chans != 3:
        raise UserError(f"MODEL.MSG.IN_CHANS={config.model.msg.in_chans}: image folders give 3 channels")
