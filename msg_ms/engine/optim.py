"""Optimizers as Cells whose ``construct`` takes the gradients and the learning rate of the update."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from ..config import TrainConfig
from ..models.decay import decays
from .checkpoint import named

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
        self.decay = tuple(weight_decay if decays(p) else 0.0 for p in parameters)
        self.moment1 = self.targets.clone(prefix="moment1", init="zeros")
        self.moment2 = self.targets.clone(prefix="moment2", init="zeros")
        self.updates = Parameter(Tensor(0, ms.float32), name="updates")
        self.beta1, self.beta2, self.eps = betas[0], betas[1], eps
        self.adam = ops.Adam()

    def state(self) -> dict[str, Parameter]:
        """Everything that a checkpoint must keep."""
        return named([*self.moment1, *self.moment2, self.updates])

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> bool:
        updates = self.updates + 1.0
        power1, power2 = ops.pow(self.beta1, updates), ops.pow(self.beta2, updates)
        # The fused operator adds eps to the uncorrected root; scaled like this it is PyTorch's.
        eps = self.eps * ops.sqrt(1.0 - power2)
        update = partial(self.update_one, rate, power1, power2, eps)
        done = for_each(update, self.decay, self.targets, self.moment1, self.moment2, gradients)
        return ops.depend(ops.depend(True, ops.assign(self.updates, updates)), done)

    def update_one(self, rate, power1, power2, eps, decay, parameter, moment1, moment2, gradient):
        """Decay and Adam's step on one parameter, in place."""
        if decay > 0.0:
            ops.assign(parameter, parameter * (1.0 - rate * decay))
        self.adam(parameter, moment1, moment2, power1, power2, rate, self.beta1, self.beta2, eps, gradient)
        return True


class SGD(nn.Cell):
    """SGD with Nesterov momentum and weight decay as PyTorch computes it; state: the velocities."""

    def __init__(self, parameters: Sequence[Parameter], momentum: float, weight_decay: float):
        super().__init__()
        self.targets = ParameterTuple(parameters)
        self.decay = tuple(weight_decay if decays(p) else 0.0 for p in parameters)
        self.velocity = self.targets.clone(prefix="velocity", init="zeros")
        self.momentum = momentum

    def state(self) -> dict[str, Parameter]:
        """Everything that a checkpoint must keep."""
        return named(self.velocity)

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> bool:
        update = partial(self.update_one, rate)
        return ops.depend(True, for_each(update, self.decay, self.targets, self.velocity, gradients))

    def update_one(self, rate, decay, parameter, velocity, gradient):
        """The step on one parameter, in place."""
        gradient = gradient + decay * parameter
        moved = self.momentum * velocity + gradient
        ops.assign(velocity, moved)
        ops.assign(parameter, parameter - rate * (gradient + self.momentum * moved))
        return True


def build_optimizer(config: TrainConfig, parameters: Sequence[Parameter]) -> AdamW | SGD:
    """The optimizer that ``TRAIN.OPTIMIZER`` names, for these parameters."""
    if config.optimizer.name == "sgd":
        return SGD(parameters, config.optimizer.momentum, config.weight_decay)
    return AdamW(parameters, config.optimizer.betas, config.optimizer.eps, config.weight_decay)
