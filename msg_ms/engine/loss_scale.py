"""Loss scaling for float16, whose smallest gradients would otherwise round to zero."""

from __future__ import annotations

from mindspore import Parameter
from mindspore.amp import DynamicLossScaler, LossScaler, StaticLossScaler

from ..config import AmpConfig

FACTOR = 2  # what the dynamic scale is divided by after an overflow, and multiplied by after WINDOW updates without


def build_scaler(level: str, config: AmpConfig) -> LossScaler | None:
    """MindSpore's own scaler as ``AMP`` asks for it; None where nothing is to scale (O0, and bfloat16's wide range)."""
    if level == "O0" or config.dtype != "float16":
        return None
    if config.dynamic:
        return DynamicLossScaler(config.loss_scale, FACTOR, config.window)
    return StaticLossScaler(config.loss_scale)


def scaler_state(scaler: LossScaler | None) -> dict[str, Parameter]:
    """Everything that a checkpoint must keep."""
    return {} if scaler is None else {name: p for name, p in vars(scaler).items() if isinstance(p, Parameter)}
