"""Return the memory of MindSpore's compiler to the system."""

from __future__ import annotations

import ctypes
from typing import Any

from mindspore import nn


class CompactAfterCompile(nn.Cell):
    """A Cell that returns unused memory to the system when a graph has been compiled.

    The compiler's many small objects remain in the C library's free lists. For a detector this is about 0.4 GB, which
    the tensors' pool can't use.
    """

    def compile(self, *args: Any, **kwargs: Any) -> Any:
        """Compile the Cell for these inputs unless that has been done, as ``nn.Cell.compile`` does."""
        graphs = len(self.compile_cache)
        result = super().compile(*args, **kwargs)
        if len(self.compile_cache) > graphs:
            compact_memory()
        return result


def compact_memory() -> None:
    """Return free memory to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
