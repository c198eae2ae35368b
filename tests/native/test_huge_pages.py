"""Constants in huge pages: same values, aligned, and as independent of each other as any parameters."""

import copy
import gc
import mmap

import numpy as np
import pytest
from mindspore import Tensor

from msg_ms.native.huge_pages import HugePages

SIZES = (1, 1000, HugePages.CHUNK // 4 + 1, 7)  # the third needs memory of its own


def parameters(sizes=SIZES):
    memory, rng = HugePages(), np.random.RandomState(0)
    values = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    return values, [memory.parameter(Tensor(value), f"p{i}") for i, value in enumerate(values)]


def test_parameters_keep_their_values():
    values, constants = parameters()
    gc.collect()  # the parameters alone hold the memory
    for i, (value, constant) in enumerate(zip(values, constants, strict=True)):
        assert np.array_equal(constant.asnumpy(), value)
        assert (constant.name, constant.requires_grad, constant.shape) == (f"p{i}", False, value.shape)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no huge pages")
def test_they_are_aligned_and_side_by_side():
    _, constants = parameters()
    addresses = [constant.data_ptr() for constant in constants]
    assert all(address % HugePages.ALIGNMENT == 0 for address in addresses)
    assert addresses[1] - addresses[0] == HugePages.ALIGNMENT


def test_a_copy_has_its_own_memory():
    (value, _), (constant, neighbour) = parameters((100, 100))
    clone = copy.deepcopy(constant)
    constant.set_data(Tensor(np.zeros(100, np.float32)))
    assert np.array_equal(clone.asnumpy(), value) and neighbour.asnumpy().any()


def test_a_system_without_huge_pages_gets_plain_parameters(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    (value,), (constant,) = parameters((100,))
    assert np.array_equal(constant.asnumpy(), value) and not constant.requires_grad
