"""The AdamW step on all parameters at once, in place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from .backend import in_place_kernel


class AdamWStep(nn.Cell):
    """One AdamW step as PyTorch computes it (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).

    Decoupled decay comes first, then Adam with bias correction; ``eps`` is added after the square root. The native
    kernel reads and writes the memory once. The composed form runs three operators for each parameter.

    Args:
        weight_decays: weight decay of each parameter.
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
        lr_scales: factor of the learning rate of each parameter; None means 1.
    """

    def __init__(
        self,
        weight_decays: Sequence[float],
        betas: tuple[float, float],
        eps: float,
        lr_scales: Sequence[float] | None = None,
    ):
        super().__init__()
        self.weight_decays, self.eps = tuple(weight_decays), eps
        self.lr_scales = (1.0,) * len(self.weight_decays) if lr_scales is None else tuple(lr_scales)
        self.beta1, self.beta2 = betas
        self.adam = ops.Adam()
        # MindSpore unrolls a loop over hundreds of tensors into nested calls; HyperMap doesn't.
        self.for_each = ops.HyperMap()
        # 1 - beta, as single precision holds only a few digits of 1 - 0.999.
        settings = [1 - self.beta1, 1 - self.beta2, eps, *self.weight_decays, *self.lr_scales]
        self.settings = Tensor(np.array(settings, np.float32))
        count = len(self.weight_decays)
        self.native = in_place_kernel("adamw", lambda *_: [1], writes=3 * count, reads=count + 4)

    def construct(
        self,
        parameters: ParameterTuple,
        moment1: ParameterTuple,
        moment2: ParameterTuple,
        gradients: tuple[Tensor, ...],
        grad_scale: Tensor,
        lr: Tensor,
        step: Tensor,
    ) -> bool:
        """Update parameters and moments in place.

        Args:
            parameters: float32 parameters, changed in place.
            moment1: first moments, changed in place.
            moment2: second moments, changed in place.
            gradients: one for each parameter.
            grad_scale: scalar; every gradient is multiplied by it.
            lr: scalar, the learning rate.
            step: scalar, the number of this step, from 1.

        Returns:
            True, as a value that later operators can depend on.
        """
        if self.native is not None:
            scalars = (ops.reshape(grad_scale, (1,)), ops.reshape(lr, (1,)), ops.reshape(step, (1,)))
            done = self.native(*parameters, *moment1, *moment2, *gradients, *scalars, self.settings)
            return ops.depend(True, done)
        power1, power2 = ops.pow(self.beta1, step), ops.pow(self.beta2, step)
        # The fused operator adds eps to the uncorrected root; scaled like this it equals PyTorch's.
        eps = self.eps * ops.sqrt(1.0 - power2)
        step_one = partial(self.step_one, grad_scale, lr, power1, power2, eps)
        return ops.depend(
            True, self.for_each(step_one, self.weight_decays, self.lr_scales, parameters, moment1, moment2, gradients)
        )

    def step_one(
        self, grad_scale, lr, power1, power2, eps, weight_decay, lr_scale, parameter, moment1, moment2, gradient
    ):
        """Update one parameter and its moments in place."""
        gradient = gradient * grad_scale
        if lr_scale != 1.0:
            lr = lr * lr_scale
        if weight_decay > 0.0:
            ops.assign(parameter, parameter * (1.0 - lr * weight_decay))
        self.adam(parameter, moment1, moment2, power1, power2, lr, self.beta1, self.beta2, eps, gradient)
        return True
