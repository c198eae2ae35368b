"""The kernels of a block's training graph on GPU and Ascend stay at the counts of docs/devices.md."""

import mindspore as ms
import pytest
from support.reference import FIXTURES

# Primitives, transposes, passes of elementwise operators and copies of activations.
LIMITS = {
    ("GPU", "O0"): (76, 6, 24, 6),
    ("GPU", "O1"): (104, 6, 44, 6),
    ("Ascend", "O0"): (65, 6, 13, 6),
    ("Ascend", "O1"): (93, 6, 33, 6),
}


@pytest.fixture
def primitives(monkeypatch):
    monkeypatch.syspath_prepend(FIXTURES.parent.parent / "benchmarks")
    ms.set_context(mode=ms.GRAPH_MODE)
    return pytest.importorskip("primitives")


@pytest.mark.parametrize(
    "device, level",
    [
        pytest.param("GPU", "O0", marks=pytest.mark.slow),
        pytest.param("GPU", "O1", marks=pytest.mark.slow),
        pytest.param("Ascend", "O0", marks=pytest.mark.slow),
        ("Ascend", "O1"),
    ],
)
def test_a_block_has_no_more_kernels_than_documented(device, level, primitives):
    with primitives.operators_of(device):
        counts = primitives.block_counts(primitives.ours, level)
    for column, limit in zip(primitives.COLUMNS, LIMITS[device, level], strict=True):
        assert counts[column] <= limit, (column, counts)
    assert bool(counts.get("GeluExt")) == (device == "Ascend")
