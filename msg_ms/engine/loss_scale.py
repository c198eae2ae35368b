"""Loss scaling for float16, whose smallest gradients would otherwise round to zero."""

from __future__ import annotations

from mindspore import Parameter
from mindspore.amp import DynamicLossScaler, LossScaler, StaticLossScaler

from ..config import AmpConfig

FACTOR = 2  # divides the dynamic scale after an overflow, and multiplies it after WINDOW steps without one


def build_scaler(level: str, config: AmpConfig) -> LossScaler | None:
    """Return MindSpore's scaler as ``AMP`` configures it; None where none is needed (O0, or bfloat16's wide range)."""
    if level == "O0" or config.dtype != "float16":
        return None
    if config.dynamic:
        return DynamicLossScaler(config.loss_scale, FACTOR, config.window)
    return StaticLossScaler(config.loss_scale)


def scaler_state(scaler: LossScaler | None) -> dict[str, Parameter]:
    """Return everything that a checkpoint must hold, by name."""
    return {} if scaler is None else {name: p for name, p in vars(scaler).items() if isinstance(p, Parameter)}
