"""The workaround for MindSpore's private ``_compile_phase``: it still fits, and it saves the visits it should."""

import pytest
from mindspore import nn
from support.reference import SMALL

from msg_ms import MSGTransformer


def test_mindspore_keeps_the_phase_under_the_name_that_the_workaround_reads():
    cell = nn.SequentialCell([nn.Identity()])
    assert cell.compile_phase is cell._compile_phase is None
    nn.Cell.compile_phase.fset(cell, "first")
    assert cell._compile_phase == cell[0]._compile_phase == "first"


def test_sub_cells_are_visited_only_when_the_phase_changes(monkeypatch):
    model = MSGTransformer(**SMALL)
    model.compile_phase = "first"
    cells = [cell for _, cell in model.cells_and_names()]
    assert {cell.compile_phase for cell in cells} == {"first"}
    with monkeypatch.context() as patch:
        patch.setattr(nn.Cell, "cells", lambda self: pytest.fail("a sub-cell was visited"))
        patch.setattr(nn.Cell, "__setattr__", lambda self, name, value: pytest.fail(f"{name} was set"))
        type(model).compile_phase.fset(model, "first")
    model.compile_phase = "second"
    assert {cell.compile_phase for cell in cells} == {"second"}
