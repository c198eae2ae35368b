"""AdamW's step on all parameters at once, in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from .backend import kernel


class AdamWStep(nn.Cell):
    """AdamW as PyTorch computes it: decoupled decay first, then Adam with bias correction, ``eps`` after the root.

    ``decays`` has the weight decay of every parameter. What is called with are the float32 parameters and their two
    moments, which are changed, then gradients, a factor for all of those, the learning rate, and the number of this
    update, from 1. A native kernel goes over the memory once; otherwise it is three operators for each parameter.
    """

    def __init__(self, decays: Sequence[float], betas: tuple[float, float], eps: float):
        super().__init__()
        self.decays, self.eps = tuple(decays), eps
        self.beta1, self.beta2 = betas
        self.adam = ops.Adam()
        # MindSpore's loops over hundreds of tensors would be unrolled into calls within calls.
        self.for_each = ops.HyperMap()
        # The complements, as single precision can tell 1 - 0.999 to a few digits only.
        self.settings = Tensor(np.array([1 - self.beta1, 1 - self.beta2, eps, *self.decays], np.float32))
        self.native = kernel("adamw", lambda *_: [1], writes=3 * len(self.decays), reads=len(self.decays) + 4)

    def construct(
        self, targets: ParameterTuple, moment1: ParameterTuple, moment2: ParameterTuple,
        gradients: tuple[Tensor, ...], factor: Tensor, rate: Tensor, updates: Tensor,
    ) -> bool:  # fmt: skip
        if self.native is not None:
            done = self.native(
                *targets, *moment1, *moment2, *gradients, ops.reshape(factor, (1,)), ops.reshape(rate, (1,)),
                ops.reshape(updates, (1,)), self.settings,
            )  # fmt: skip
            return ops.depend(True, done)
        power1, power2 = ops.pow(self.beta1, updates), ops.pow(self.beta2, updates)
        # The fused operator adds eps to the uncorrected root; scaled like this it is PyTorch's.
        eps = self.eps * ops.sqrt(1.0 - power2)
        update = partial(self.update_one, factor, rate, power1, power2, eps)
        return ops.depend(True, self.for_each(update, self.decays, targets, moment1, moment2, gradients))

    def update_one(self, factor, rate, power1, power2, eps, decay, parameter, moment1, moment2, gradient):
        """Decay and Adam's step on one parameter, in place."""
        gradient = gradient * factor
        if decay > 0.0:
            ops.assign(parameter, parameter * (1.0 - rate * decay))
        self.adam(parameter, moment1, moment2, power1, power2, rate, self.beta1, self.beta2, eps, gradient)
        return True
