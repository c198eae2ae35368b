"""Optimizers as Cells whose ``construct`` takes the gradients and the learning rate of the update."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ..config import TrainConfig

NO_DECAY_NAMES = ("absolute_pos_embed",)
NO_DECAY_KEYWORDS = ("relative_position_bias_table", "rel_pos_msg")


def decays(parameter: Parameter) -> bool:
    """Whether weight decay applies: not to vectors, biases, position bias and position embedding.

    The paper's code means to spare the message tokens too, but names them wrongly; its results come from decayed
    ones, so they decay here.
    """
    name = parameter.name
    spared = name.endswith(".bias") or name in NO_DECAY_NAMES or any(word in name for word in NO_DECAY_KEYWORDS)
    return parameter.ndim > 1 and not spared


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

    def state(self) -> list[Parameter]:
        """Everything that a checkpoint must keep."""
        return [*self.moment1, *self.moment2, self.updates]

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> bool:
        updates = self.updates + 1.0
        power1, power2 = ops.pow(self.beta1, updates), ops.pow(self.beta2, updates)
        # The fused operator adds eps to the uncorrected root; scaled like this it is PyTorch's.
        eps = self.eps * ops.sqrt(1.0 - power2)
        for i in range(len(self.targets)):
            parameter = self.targets[i]
            if self.decay[i] > 0.0:
                ops.assign(parameter, parameter * (1.0 - rate * self.decay[i]))
            self.adam(
                parameter, self.moment1[i], self.moment2[i], power1, power2, rate, self.beta1, self.beta2, eps,
                gradients[i],
            )  # fmt: skip
        ops.assign(self.updates, updates)
        return True


class SGD(nn.Cell):
    """SGD with Nesterov momentum and weight decay as PyTorch computes it; state: the velocities."""

    def __init__(self, parameters: Sequence[Parameter], momentum: float, weight_decay: float):
        super().__init__()
        self.targets = ParameterTuple(parameters)
        self.decay = tuple(weight_decay if decays(p) else 0.0 for p in parameters)
        self.velocity = self.targets.clone(prefix="velocity", init="zeros")
        self.momentum = momentum

    def state(self) -> list[Parameter]:
        """Everything that a checkpoint must keep."""
        return list(self.velocity)

    def construct(self, gradients: tuple[Tensor, ...], rate: Tensor) -> bool:
        for i in range(len(self.targets)):
            parameter = self.targets[i]
            gradient = gradients[i] + self.decay[i] * parameter
            velocity = self.momentum * self.velocity[i] + gradient
            ops.assign(self.velocity[i], velocity)
            ops.assign(parameter, parameter - rate * (gradient + self.momentum * velocity))
        return True


def build_optimizer(config: TrainConfig, parameters: Sequence[Parameter]) -> AdamW | SGD:
    """The optimizer that ``TRAIN.OPTIMIZER`` names, for these parameters."""
    if config.optimizer.name == "sgd":
        return SGD(parameters, config.optimizer.momentum, config.weight_decay)
    return AdamW(parameters, config.optimizer.betas, config.optimizer.eps, config.weight_decay)
