"""Memory for the packed weights, in huge pages."""

from __future__ import annotations

import mmap

import numpy as np
from mindspore import Parameter, Tensor


class HugePages:
    """Place constants in huge pages (2 MB), where the system has them (Linux), aligned to cache lines.

    The weights of a model are read once for each image or few images. In pages of 4 KB the translation of their
    addresses costs a few percent of the time. A page is in memory from the first constant in it.
    """

    CHUNK = 32 << 20  # bytes reserved at a time
    ALIGNMENT = 64

    def __init__(self):
        self._memory, self._used = None, 0

    def parameter(self, value: Tensor, name: str) -> Parameter:
        """Return a parameter without gradient that has a copy of ``value``, float32."""
        if not hasattr(mmap, "MADV_HUGEPAGE"):
            return Parameter(Tensor(value), name=name, requires_grad=False)
        parameter = Parameter(Tensor(np.zeros(1, np.float32)), name=name, requires_grad=False)
        parameter.set_data(Tensor.from_numpy(self._copy(value.asnumpy())), slice_shape=True)  # without another copy
        return parameter

    def _copy(self, value: np.ndarray) -> np.ndarray:
        begin = -(-self._used // self.ALIGNMENT) * self.ALIGNMENT
        if self._memory is None or begin + value.nbytes > len(self._memory):
            size, begin = max(self.CHUNK, value.nbytes), 0
            self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._used = begin + value.nbytes
        # The array refers to the memory, which is freed with the last parameter in it.
        copy = np.frombuffer(self._memory, value.dtype, value.size, begin).reshape(value.shape)
        copy[...] = value
        return copy
