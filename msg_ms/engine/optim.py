"""Optimizers as Cells that receive the gradients and the learning rate of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from ..checkpoint import parameters_by_name
from ..config import TrainConfig
from ..models.decay import has_weight_decay
from ..ops import AdamWStep

# A loop over hundreds of parameters would be unrolled into nested calls, deeper than the compiler accepts.
for_each = ops.HyperMap()
Decays = Callable[[Parameter], bool]


class AdamW(nn.Cell):
    """AdamW as in PyTorch: decoupled decay first, then Adam with bias correction, ``eps`` outside the square root.

    Args:
        parameters: The parameters to train; they keep their names.
        betas: Decay rates of the two moments.
        eps: Term added to the denominator.
        weight_decay: Decay of the parameters that ``decays`` selects.
        decays: Returns whether weight decay applies to a parameter.
        lr_scales: Factor of each parameter's learning rate; None means 1.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decays: Decays = has_weight_decay,
        lr_scales: Sequence[float] | None = None,
    ):
        super().__init__()
        # These belong to the model: they must not be renamed, nor saved with the state.
        self.targets = ParameterTuple(parameters)
        self.moment1 = self.targets.clone(prefix="moment1", init="zeros")
        self.moment2 = self.targets.clone(prefix="moment2", init="zeros")
        self.steps = Parameter(Tensor(0, ms.float32), name="updates")  # the name in checkpoints
        self.step = AdamWStep([weight_decay if decays(p) else 0.0 for p in parameters], betas, eps, lr_scales)

    def state(self) -> dict[str, Parameter]:
        """Return everything that a checkpoint must hold, by name."""
        return parameters_by_name([*self.moment1, *self.moment2, self.steps])

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor, factor: Tensor) -> bool:
        """Step from ``factor`` times the gradients, which compensates loss scale, clipping and averaging."""
        steps = self.steps + 1.0
        done = self.step(self.targets, self.moment1, self.moment2, gradients, factor, lr, steps)
        return ops.depend(ops.depend(True, ops.assign(self.steps, steps)), done)


class SGD(nn.Cell):
    """SGD with Nesterov momentum and weight decay, as in PyTorch.

    Args:
        parameters: The parameters to train; they keep their names.
        momentum: Momentum of the velocities.
        weight_decay: Decay of the parameters that ``decays`` selects.
        decays: Returns whether weight decay applies to a parameter.
        lr_scales: Factor of each parameter's learning rate; None means 1.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        momentum: float,
        weight_decay: float,
        decays: Decays = has_weight_decay,
        lr_scales: Sequence[float] | None = None,
    ):
        super().__init__()
        self.targets = ParameterTuple(parameters)
        self.decay = tuple(weight_decay if decays(p) else 0.0 for p in parameters)
        self.lr_scales = (1.0,) * len(self.targets) if lr_scales is None else tuple(lr_scales)
        self.velocity = self.targets.clone(prefix="velocity", init="zeros")
        self.momentum = momentum

    def state(self) -> dict[str, Parameter]:
        """Return everything that a checkpoint must hold, by name."""
        return parameters_by_name(self.velocity)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor, factor: Tensor) -> bool:
        """Step from ``factor`` times the gradients, which compensates loss scale, clipping and averaging."""
        step = partial(self.step_one, lr, factor)
        return ops.depend(True, for_each(step, self.decay, self.lr_scales, self.targets, self.velocity, gradients))

    def step_one(self, lr, factor, decay, lr_scale, parameter, velocity, gradient):
        """Step one parameter in place."""
        if lr_scale != 1.0:
            lr = lr * lr_scale
        gradient = gradient * factor + decay * parameter
        moved = self.momentum * velocity + gradient
        ops.assign(velocity, moved)
        ops.assign(parameter, parameter - lr * (gradient + self.momentum * moved))
        return True


def build_optimizer(
    config: TrainConfig,
    parameters: Sequence[Parameter],
    decays: Decays = has_weight_decay,
    lr_scales: Sequence[float] | None = None,
) -> AdamW | SGD:
    """Return the optimizer that ``TRAIN.OPTIMIZER`` names.

    Args:
        config: The section ``TRAIN``.
        parameters: The parameters to train.
        decays: Returns whether weight decay applies to a parameter.
        lr_scales: Factor of each parameter's learning rate; None means 1.
    """
    if config.optimizer.name == "sgd":
        return SGD(parameters, config.optimizer.momentum, config.weight_decay, decays, lr_scales)
    betas, eps = config.optimizer.betas, config.optimizer.eps
    return AdamW(parameters, betas, eps, config.weight_decay, decays, lr_scales)
