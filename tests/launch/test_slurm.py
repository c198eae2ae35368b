"""The sbatch files in a Slurm of two nodes: faults under both process trackers, and no process that is left."""

import re

import pytest
from support.slurm import cluster, missing
from support.slurm_faults import TRACKERS, run_fault

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

STOPPED = r"stopped at step \d+; the last checkpoint is .*; rerun the same command to resume"
FINISHED = "training finished in .*"
RESUMED = r"ckpt_\d+.ckpt: epoch \d+, step \d+; COMPLETED, status 0"
# By fault: the job's state, the last line of interest in Slurm's output, and the same command again.
EXPECTED = {
    "finished": ("COMPLETED, status 0", FINISHED, ""),
    "evaluated": ("COMPLETED, status 0", r".*best.ckpt: top-1 .* on 9 images", ""),
    "cancelled": ("CANCELLED, status 75", STOPPED, RESUMED),
    "cancelled_while_compiling": ("CANCELLED, status 75", "stopped before the first step; rerun the same .*", ""),
    "requeued": ("COMPLETED, status 0", FINISHED, ""),
    "warned": ("COMPLETED, status 0", FINISHED, ""),
    "warned_and_cancelled": ("CANCELLED, status 75", STOPPED, ""),
    "time_limit": ("TIMEOUT, status 75", STOPPED, ""),
    "worker_killed": ("FAILED, status 1", "error: rank 1 .*|error: rank 0 .*", RESUMED),
    "launcher_killed": ("FAILED, status 137", "error: rank 1 stopped responding; last lines of .*", ""),
    "one_node_stopped": ("FAILED, status 75", STOPPED, RESUMED),
    "too_many_tasks": ("FAILED, status 2", "error: Slurm has started 4 tasks on 2 nodes, but .*", ""),
    "two_jobs": ("COMPLETED, status 0", FINISHED, "the other job: COMPLETED, status 0"),
}


@pytest.fixture(scope="module", params=TRACKERS)
def slurm(request):
    with cluster(request.param):
        yield


@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_under_slurm(fault, tmp_path):
    row = run_fault(fault, tmp_path)
    state, reads, again = EXPECTED[fault]
    assert row.state == state and re.fullmatch(reads, row.reads) and re.fullmatch(again, row.again), row
    assert row.left == 0, row.processes
    assert row.restarts == (fault in ("requeued", "warned"))
    if fault in ("requeued", "warned"):
        assert "resuming from" in row.output
