"""The end of a process: Cells go without a message, and errors of other destructors are still reported."""

import subprocess
import sys

import mindspore as ms
import pytest
from conftest import ROOT

SCRIPT = """
import mindspore as ms, numpy as np, msg_ms
from mindspore import nn, ops
model = msg_ms.create_model("msg_tiny", img_size=56, embed_dim=16, depths=(1, 1), num_heads=(1, 2), shuffle_size=(2, 1))
cycle = [nn.Dense(2, 3)]
cycle.append(cycle)
compiled = nn.Dense(2, 3)
ms.set_context(mode=ms.GRAPH_MODE)
compiled(ms.Tensor(np.zeros((4, 2), np.float32)))
"""
BROKEN = """
class Broken(nn.Cell):
    def __del__(self):
        raise RuntimeError("a fault of the user's own")
broken = Broken()
"""


def end_of(script):
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", cwd=ROOT, timeout=300, check=True
    )
    return done.stderr


def test_a_process_that_holds_models_ends_without_a_message():
    assert "Exception ignored" not in end_of(SCRIPT)


def test_errors_of_others_are_still_reported():
    text = end_of(SCRIPT + BROKEN)
    assert text.count("Exception ignored") == 1 and "RuntimeError: a fault of the user's own" in text


def test_destructors_run_as_before_while_the_process_lives():
    before = ms.nn.Cell.total_instance_count
    cell = ms.nn.Dense(2, 3)
    assert ms.nn.Cell.total_instance_count == before + 1
    del cell
    assert ms.nn.Cell.total_instance_count == before


def test_an_error_in_mindspores_destructor_is_raised(monkeypatch):
    cell = ms.nn.ReLU()
    monkeypatch.delattr(ms.nn.Cell, "global_cells")
    with pytest.raises(AttributeError, match="global_cells"):
        ms.nn.Cell.__del__(cell)
    monkeypatch.undo()
    ms.nn.Cell.total_instance_count += 1  # the call above subtracted it
