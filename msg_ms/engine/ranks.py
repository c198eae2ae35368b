"""The processes of a job and their collectives.

MindSpore's CPU backend sums, gathers and broadcasts single precision only. Other data is sent as bytes: two bytes
make an integer below 65,536, which float32 holds exactly on every device.
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
from mindspore.communication import get_group_size, get_rank

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


def _encode(data: bytes) -> np.ndarray:
    """Return an even number of bytes as float32, two bytes per number."""
    return np.frombuffer(data, "<u2").astype(np.float32)


def _decode(numbers: np.ndarray) -> bytes:
    return numbers.astype("<u2").tobytes()


@dataclass(frozen=True)
class Ranks:
    """The place of this process in its job.

    A single process communicates with nobody: every method returns its own input.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def gather(self, values: Iterable[float]) -> np.ndarray:
        """Gather equally many numbers from every rank: float64 (world_size, n)."""
        own = np.array(list(values), np.float64)
        if self.world_size == 1:
            return own[None]
        rows = _gather()(Tensor(_encode(own.tobytes()))).asnumpy()
        return np.frombuffer(_decode(rows), np.float64).reshape(self.world_size, -1)

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Gather data of any length from every rank, in the order of the ranks; two bytes travel as four."""
        if self.world_size == 1:
            return [data]
        lengths = self.gather([len(data)])[:, 0].astype(int)
        padded = data.ljust(-(-int(lengths.max()) // 2) * 2, b"\0")
        if not padded:
            return [b""] * self.world_size
        rows = _gather()(Tensor(_encode(padded))).asnumpy().reshape(self.world_size, -1)
        return [_decode(row)[:length] for row, length in zip(rows, lengths, strict=True)]

    def gather_text(self, text: str) -> str:
        """Gather the text of every rank and join it in the order of the ranks."""
        return "".join(part.decode() for part in self.gather_bytes(text.encode()))

    def sum(self, values: Iterable[float]) -> np.ndarray:
        """Sum over all ranks; every rank gets the same bits."""
        return self.gather(values).sum(0)

    def any(self, flag: bool) -> bool:
        """Return whether any rank passes True."""
        return bool(self.sum([flag])[0])

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value on every rank; it must be serialisable as JSON."""
        if self.world_size == 1:
            return value
        text = json.dumps(value).encode() if self.is_main else b""
        length = int(self.gather([len(text)])[0, 0])
        numbers = _encode(text.ljust(length + length % 2)) if self.is_main else np.zeros(-(-length // 2), np.float32)
        return json.loads(_decode(_broadcast()(Tensor(numbers)).asnumpy())[:length])

    def broadcast_parameters(self, parameters: Iterable[Parameter]) -> None:
        """Set the parameters of every rank to rank 0's."""
        if self.world_size == 1:
            return
        for parameter in parameters:
            value = _broadcast()(Tensor(parameter.asnumpy().astype(np.float32).reshape(-1)))
            parameter.set_data(Tensor(value.asnumpy().reshape(parameter.shape)).astype(parameter.dtype))

    def average_parameters(self, parameters: Iterable[Parameter]) -> None:
        """Set the parameters of every rank to their means over all ranks, with the same bits everywhere."""
        parameters = list(parameters)
        if self.world_size == 1 or not parameters:
            return
        own = np.concatenate([parameter.asnumpy().astype(np.float32).reshape(-1) for parameter in parameters])
        mean = self.gather(own).mean(0)
        for parameter, values in zip(
            parameters, np.split(mean, np.cumsum([p.size for p in parameters])[:-1]), strict=True
        ):
            parameter.set_data(Tensor(values.reshape(parameter.shape), parameter.dtype))

    def assert_same_on_all_ranks(self, name: str, data: Iterable[bytes], remedy: str) -> None:
        """Check that every rank has the same data.

        Args:
            name: The data in words, for the error message.
            data: The data in pieces.
            remedy: How to fix a difference, for the error message.

        Raises:
            UserError: On every rank, if the data differ; the message names the ranks that differ from rank 0.
        """
        if self.world_size == 1:
            return
        checksum = 0
        for piece in data:
            checksum = zlib.crc32(piece, checksum)
        checksums = self.gather([checksum])[:, 0]
        different = [str(rank) for rank in range(self.world_size) if checksums[rank] != checksums[0]]
        if different:
            raise UserError(f"{name} of rank {', '.join(different)} differs from rank 0's: {remedy}")

    def run_on_rank0(self, work: Callable[[], Any]) -> Any:
        """Call ``work`` on rank 0 and return its result on every rank.

        Raises:
            UserError: On every rank, if ``work`` raises one.
        """
        outcome = {}
        if self.is_main:
            try:
                outcome = {"result": work()}
            except UserError as error:
                outcome = {"error": str(error)}
        outcome = self.broadcast_object(outcome)
        if "error" in outcome:
            raise UserError(outcome["error"])
        return outcome["result"]


SINGLE_PROCESS = Ranks()


def parameter_bytes(parameters: Iterable[Parameter]) -> Iterable[bytes]:
    """Yield the parameters' values, for ``Ranks.assert_same_on_all_ranks``."""
    return (parameter.asnumpy().tobytes() for parameter in parameters)


class GradientSum(nn.Cell):
    """The gradients summed over all ranks, and a few figures gathered in the same all-reduce.

    On CPU they travel as one vector in one all-reduce. On GPU and Ascend each gradient has its own all-reduce, marked
    for the backend to fuse into buckets of about ``BUCKET_BYTES``. The backend sends a bucket while the backward pass
    still computes others. The figures are part of the first bucket.

    Args:
        parameters: The parameters that the gradients belong to.
        device_target: "CPU", "GPU" or "Ascend".
    """

    BUCKET_BYTES = 32 << 20

    def __init__(self, parameters: Iterable[Parameter], device_target: str):
        super().__init__(auto_prefix=False)
        shapes = [tuple(parameter.shape) for parameter in parameters]
        self.sizes = tuple(int(np.prod(shape)) for shape in shapes)
        *self.begins, self.size = np.cumsum((0, *self.sizes)).tolist()
        self.begins = tuple(self.begins)
        self.one_vector = device_target == "CPU"
        self.rank, self.world_size = get_rank(), get_group_size()
        self.all_reduce, self.reduce_figures = ops.AllReduce(), _reducer(1)
        self.reducers = () if self.one_vector else tuple(_reducer(bucket) for bucket in self._buckets())

    def _buckets(self) -> list[int]:
        """Return each gradient's bucket; backward passes finish the last layers first, which fill bucket 1."""
        ends = np.cumsum([4 * size for size in reversed(self.sizes)])
        return [1 + int(end // self.BUCKET_BYTES) for end in ends][::-1]

    def construct(self, gradients: tuple[Tensor, ...], figures: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return the sums of the gradients, and the figures (n,) of every rank, (world_size * n,)."""
        count = figures.shape[0]
        # Each rank adds to zeros of the others, so the figures arrive unchanged, NaN as well.
        before, after = ops.zeros(self.rank * count), ops.zeros((self.world_size - 1 - self.rank) * count)
        row = ops.cat((before, figures, after))
        if not self.one_vector:
            return self.reduce_each(self.reducers, gradients), self.reduce_figures(row)
        # Loops, also those inside ops.split, would be deeper than the compiler accepts for hundreds of gradients.
        total = self.all_reduce(ops.cat((*ops.HyperMap()(_flat, gradients), row)))
        sums = ops.HyperMap()(ops.partial(_part, total), self.begins, self.sizes, gradients)
        return sums, ops.slice(total, (self.size,), (self.world_size * count,))

    @staticmethod
    def reduce_each(reducers, gradients):
        """Apply each gradient's own all-reduce."""
        return ops.HyperMap()(_apply, reducers, gradients)


def _apply(reducer, gradient):
    return reducer(gradient)


def _flat(gradient):
    return gradient.reshape(-1)


def _part(total, begin, size, gradient):
    return ops.slice(total, (begin,), (size,)).reshape(gradient.shape)


def _reducer(bucket: int) -> ops.AllReduce:
    reducer = ops.AllReduce()
    reducer.add_prim_attr("fusion", bucket)
    return reducer
