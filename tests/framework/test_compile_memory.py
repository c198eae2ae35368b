"""Memory is returned once for each compiled graph."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

from msg_ms.framework import compile_memory


class Doubled(compile_memory.CompactAfterCompile):
    def construct(self, x):
        return x * 2


def test_memory_is_returned_after_each_compilation(monkeypatch):
    ms.set_context(mode=ms.GRAPH_MODE)
    calls, compact = [], compile_memory.compact_memory
    monkeypatch.setattr(compile_memory, "compact_memory", lambda: calls.append(compact()))
    cell = Doubled()
    for size, expected in ((2, 1), (2, 1), (3, 2)):
        assert cell(Tensor(np.ones(size, np.float32))).asnumpy().tolist() == [2.0] * size
        assert len(calls) == expected
