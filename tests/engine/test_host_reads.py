"""What a training step costs beside its graph: reads of device values, collectives, bytes to the device."""

import json

import pytest
from test_ranks import launch

STEPS, PRINTED, BATCH = 12, 5, 8  # per epoch of the toy task on one rank


@pytest.mark.parametrize("ranks", (1, pytest.param(2, marks=pytest.mark.slow)))
def test_a_step_is_read_once_and_late_and_gathers_nothing(ranks, tmp_path):
    launch(ranks, "count_reads.py", tmp_path, cwd=tmp_path, PRINT_FREQ=str(PRINTED))
    steps = STEPS // ranks
    # The first step, the printed ones and the last one are read at once.
    waits = len({1, steps, *range(PRINTED, steps + 1, PRINTED)})
    widths = [5, 3] * (steps // 2)  # the toy's batches: x (8, width) and y (8,)
    inputs = sum(4 * BATCH * (width + 1) for width in widths) + 8 * steps  # lr and stop request
    for rank in range(ranks):
        counts = json.loads((tmp_path / f"counts_rank{rank}.json").read_text())
        assert counts == {"reads": steps, "waits": waits, "gathers": 0, "bytes": inputs, "steps": steps}
