"""The processes of a job and what they tell each other, through MindSpore's collectives.

MindSpore's CPU backend sums, gathers and broadcasts single precision alone: other data travels as bytes, each a float.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ..errors import UserError


class _Gather(nn.Cell):
    def __init__(self):
        super().__init__()
        self.all_gather = ops.AllGather()

    def construct(self, x: Tensor) -> Tensor:
        return self.all_gather(x)


class _Broadcast(nn.Cell):
    def __init__(self):
        super().__init__()
        self.broadcast = ops.Broadcast(0)

    def construct(self, x: Tensor) -> Tensor:
        return self.broadcast((x,))[0]


_gather, _broadcast = functools.cache(_Gather), functools.cache(_Broadcast)  # compiled once


@dataclass(frozen=True)
class Ranks:
    """``rank`` of ``world`` processes; alone, nothing is exchanged and every call gives back what it gets."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, values: Iterable[float]) -> np.ndarray:
        """Every rank's ``values``, as many on each, as float64 (world, n)."""
        own = np.array(list(values), np.float64)
        if self.world == 1:
            return own[None]
        digits = np.frombuffer(own.tobytes(), np.uint8).astype(np.float32)
        rows = _gather()(Tensor(digits)).asnumpy().reshape(self.world, -1).astype(np.uint8)
        return np.frombuffer(rows.tobytes(), np.float64).reshape(self.world, -1)

    def sum(self, values: Iterable[float]) -> np.ndarray:
        """The sums over all ranks, the same on each to the last bit."""
        return self.gather(values).sum(0)

    def tell(self, value: Any) -> Any:
        """What the first rank passes, on every rank; it must be plain enough for JSON."""
        if self.world == 1:
            return value
        text = np.frombuffer(json.dumps(value).encode() if self.first else b"", np.uint8).astype(np.float32)
        length = int(self.gather([len(text)])[0, 0])
        text = text if self.first else np.zeros(length, np.float32)
        return json.loads(_broadcast()(Tensor(text)).asnumpy().astype(np.uint8).tobytes())

    def gather_text(self, text: str) -> str:
        """Every rank's text, one after the other."""
        if self.world == 1:
            return text
        digits = np.frombuffer(text.encode(), np.uint8).astype(np.float64)
        longest = int(self.gather([len(digits)]).max())
        rows = self.gather(np.pad(digits, (0, longest - len(digits))))
        return "".join(row[row > 0].astype(np.uint8).tobytes().decode() for row in rows)

    def share(self, parameters: Iterable[Parameter]) -> None:
        """Set the parameters of every rank to the first rank's."""
        if self.world == 1:
            return
        for parameter in parameters:
            value = _broadcast()(Tensor(parameter.asnumpy().astype(np.float32).reshape(-1)))
            parameter.set_data(Tensor(value.asnumpy().reshape(parameter.shape)).astype(parameter.dtype))

    def assert_same_on_all_ranks(self, what: str, data: Iterable[bytes], remedy: str) -> None:
        """Raise UserError on every rank where the ranks' ``data`` are not the same, naming those that differ."""
        if self.world == 1:
            return
        checksum = 0
        for piece in data:
            checksum = zlib.crc32(piece, checksum)
        sums = self.gather([checksum])[:, 0]
        odd = [str(rank) for rank in range(self.world) if sums[rank] != sums[0]]
        if odd:
            raise UserError(f"{what} of rank {', '.join(odd)} not the same as rank 0's: {remedy}")

    def any(self, flag: bool) -> bool:
        """Whether one of the ranks passes True."""
        return bool(self.sum([flag])[0])

    def run_on_rank0(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives on the first rank, on every rank; a UserError that it raises is raised on every rank."""
        told = {}
        if self.first:
            try:
                told = {"result": work()}
            except UserError as error:
                told = {"error": str(error)}
        told = self.tell(told)
        if "error" in told:
            raise UserError(told["error"])
        return told["result"]


SINGLE_PROCESS = Ranks()


def parameter_bytes(parameters: Iterable[Parameter]) -> Iterable[bytes]:
    """The parameters' values, for :meth:`Ranks.assert_same_on_all_ranks`."""
    return (parameter.asnumpy().tobytes() for parameter in parameters)


class GradientSum(nn.Cell):
    """The gradients summed over all ranks.

    On CPU as one vector in one all-reduce. On GPU and Ascend each gradient has its own, marked for the backend to fuse
    into buckets of about ``BUCKET`` bytes, which it sends while the backward pass is still computing others.
    """

    BUCKET = 32 << 20

    def __init__(self, parameters: Iterable[Parameter], device_target: str):
        super().__init__(auto_prefix=False)
        shapes = [tuple(parameter.shape) for parameter in parameters]
        self.shapes, self.sizes = shapes, [int(np.prod(shape)) for shape in shapes]
        self.one_vector = device_target == "CPU"
        self.all_reduce = ops.AllReduce()
        self.reducers = () if self.one_vector else tuple(_reducer(number) for number in self._buckets())

    def _buckets(self) -> list[int]:
        """A bucket's number for each gradient; backward passes finish the last layers first, which fill bucket 1."""
        ends = np.cumsum([4 * size for size in reversed(self.sizes)])
        return [1 + int(end // self.BUCKET) for end in ends][::-1]

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not self.one_vector:
            return self.each(self.reducers, gradients)
        flat = ops.cat([gradient.reshape(-1) for gradient in gradients])
        parts = ops.split(self.all_reduce(flat), self.sizes)
        return tuple([part.reshape(shape) for part, shape in zip(parts, self.shapes)])  # noqa: B905 (graph mode)

    @staticmethod
    def each(reducers, gradients):
        return ops.HyperMap()(_apply, reducers, gradients)


def _apply(reducer, gradient):
    return reducer(gradient)


def _reducer(bucket: int) -> ops.AllReduce:
    reducer = ops.AllReduce()
    reducer.add_prim_attr("fusion", bucket)
    return reducer
