"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import partial

from .optim import for_each


class WeightEMA(nn.Cell):
    """Exponential moving average of the weights: ``ema = decay * ema + (1 - decay) * weight`` at every step.

    Args:
        parameters: The weights; the average starts at their present values.
        decay: The decay per step, in [0, 1).
        frozen: Weights that do not change, and so are their own averages.
    """

    def __init__(self, parameters: Sequence[Parameter], decay: float, frozen: Sequence[Parameter] = ()):
        super().__init__(auto_prefix=False)
        self.frozen = {weight.name: weight for weight in frozen}
        self.targets = ParameterTuple(parameters)
        self.averages = self.targets.clone(prefix="ema")
        self.decay = decay

    def state(self) -> dict[str, Parameter]:
        """Return everything that a checkpoint must hold, by the names of the weights."""
        pairs = zip(self.targets, self.averages, strict=True)
        return {**self.frozen, **{weight.name: average for weight, average in pairs}}

    def construct(self) -> bool:
        """Move the averages towards the present weights."""
        return ops.depend(True, for_each(partial(_move, 1.0 - self.decay), self.averages, self.targets))

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Within the block, the model has the averaged weights; afterwards its own again."""
        own = [parameter.asnumpy().copy() for parameter in self.targets]
        _copy(self.averages, self.targets)
        try:
            yield
        finally:
            for parameter, value in zip(self.targets, own, strict=True):
                parameter.set_data(Tensor(value))


def _move(share: float, average: Parameter, weight: Parameter) -> Tensor:
    return ops.assign_add(average, share * (weight - average))


def _copy(source: Sequence[Parameter], target: Sequence[Parameter]) -> None:
    for one, other in zip(source, target, strict=True):
        other.set_data(Tensor(one.asnumpy().copy()))
