"""Optimizers as Cells whose ``construct`` takes the gradients and the learning rate of the update."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from ..checkpoint import parameters_by_name
from ..config import TrainConfig
from ..models.decay import has_weight_decay
from ..ops import AdamWStep

# A loop over hundreds of parameters would be unrolled into calls within calls, beyond what the compiler takes.
for_each = ops.HyperMap()


class AdamW(nn.Cell):
    """AdamW as PyTorch computes it: decoupled decay first, then Adam with bias correction, ``eps`` after the root.

    State: the moments, named ``moment1.<parameter>`` and ``moment2.<parameter>``, and the number of updates.
    """

    def __init__(self, parameters: Sequence[Parameter], betas: tuple[float, float], eps: float, weight_decay: float):
        super().__init__()
        # These belong to the model: they must not be renamed, nor saved with the state.
        self.targets = ParameterTuple(parameters)
        self.moment1 = self.targets.clone(prefix="moment1", init="zeros")
        self.moment2 = self.targets.clone(prefix="moment2", init="zeros")
        self.updates = Parameter(Tensor(0, ms.float32), name="updates")
        self.step = AdamWStep([weight_decay if has_weight_decay(p) else 0.0 for p in parameters], betas, eps)

    def state(self) -> dict[str, Parameter]:
        """Everything that a checkpoint must keep."""
        return parameters_by_name([*self.moment1, *self.moment2, self.updates])

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, factor: Tensor) -> bool:
        """One update from ``factor`` times the gradients."""
        updates = self.updates + 1.0
        done = self.step(self.targets, self.moment1, self.moment2, gradients, factor, rate, updates)
        return ops.depend(ops.depend(True, ops.assign(self.updates, updates)), done)


class SGD(nn.Cell):
    """SGD with Nesterov momentum and weight decay as PyTorch computes it; state: the velocities."""

    def __init__(self, parameters: Sequence[Parameter], momentum: float, weight_decay: float):
        super().__init__()
        self.targets = ParameterTuple(parameters)
        self.decay = tuple(weight_decay if has_weight_decay(p) else 0.0 for p in parameters)
        self.velocity = self.targets.clone(prefix="velocity", init="zeros")
        self.momentum = momentum

    def state(self) -> dict[str, Parameter]:
        """Everything that a checkpoint must keep."""
        return parameters_by_name(self.velocity)

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor, factor: Tensor) -> bool:
        """One update from ``factor`` times the gradients."""
        update = partial(self.update_one, rate, factor)
        return ops.depend(True, for_each(update, self.decay, self.targets, self.velocity, gradients))

    def update_one(self, rate, factor, decay, parameter, velocity, gradient):
        """The step on one parameter, in place."""
        gradient = gradient * factor + decay * parameter
        moved = self.momentum * velocity + gradient
        ops.assign(velocity, moved)
        ops.assign(parameter, parameter - rate * (gradient + self.momentum * moved))
        return True


def build_optimizer(config: TrainConfig, parameters: Sequence[Parameter]) -> AdamW | SGD:
    """The optimizer that ``TRAIN.OPTIMIZER`` names, for these parameters."""
    if config.optimizer.name == "sgd":
        return SGD(parameters, config.optimizer.momentum, config.weight_decay)
    return AdamW(parameters, config.optimizer.betas, config.optimizer.eps, config.weight_decay)
