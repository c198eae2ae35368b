"""Set MindSpore's device, mode and seeds, and join the other processes of the job."""

from __future__ import annotations

import logging
import os

import mindspore as ms
from mindspore import communication

from ..errors import UserError
from ..native.threads import usable_cores
from ..ops import bfloat16_supported
from ..ops.backend import native_library
from .ranks import SINGLE_PROCESS, Ranks

log = logging.getLogger("msg_ms")

# The environment of a job, as msrun and rank tables set it.
JOB_VARIABLES = (
    "MS_ROLE",
    "MS_WORKER_NUM",
    "MS_SCHED_HOST",
    "MS_SCHED_PORT",
    "RANK_SIZE",
    "RANK_ID",
    "RANK_TABLE_FILE",
)


def setup_device(target: str, seed: int, jit_level: str = "") -> tuple[str, Ranks]:
    """Select graph mode, the device and all seeds; under msrun or with a rank table, join the job.

    Args:
        target: "CPU", "GPU" or "Ascend"; empty leaves the choice to MindSpore.
        seed: Seed of MindSpore and its data pipelines.
        jit_level: MindSpore's ``jit_level``; empty leaves the choice to MindSpore.

    Returns:
        The device target, and the place of this process in its job.

    Raises:
        UserError: If the device can't be used, or the job's other processes did not start in time.
    """
    try:
        if target:
            ms.set_device(target)
    except (ValueError, RuntimeError) as error:
        # A process that has used its device can't choose it again, in a notebook for example.
        if ms.get_context("device_target") != target or "has been initialized" not in str(error):
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"device target {target} can't be used on this machine: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE)
    if jit_level:
        ms.set_context(jit_config={"jit_level": jit_level})
    distributed = bool(os.environ.get("MS_ROLE")) or os.environ.get("RANK_SIZE", "") not in ("", "1")
    ranks = _join() if distributed else SINGLE_PROCESS
    ms.set_seed(seed)
    ms.dataset.config.set_seed(seed)
    return ms.get_context("device_target"), ranks


def _join() -> Ranks:
    """Join the other processes of the job. The scheduler process, which msrun starts too, stays in here."""
    try:
        communication.init()
    except Exception as error:  # MindSpore fails in many ways where the environment describes no job
        if "spawned" not in str(error):
            present = [f"{name}={os.environ[name]}" for name in JOB_VARIABLES if name in os.environ]
            reason = _missing_variables() or (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"can't join the job that the environment describes ({', '.join(present)}): {reason}; unset these "
                "variables to run a single process, or start the job with scripts/run_distribute_train.sh"
            ) from None
        limit = os.environ.get("MS_TOPO_TIMEOUT", "some")
        raise UserError(
            f"not all processes of the job started within {limit} seconds: check that every node runs the same "
            "command with its own NODE_RANK and can reach MASTER_ADDR (CLUSTER_TIMEOUT sets the waiting time)"
        ) from None
    return Ranks(communication.get_rank(), communication.get_group_size())


def _missing_variables() -> str:
    """Return the variables that the environment lacks for a job, in words; empty if none."""
    if "MS_ROLE" not in os.environ:
        return "" if os.environ.get("RANK_TABLE_FILE") else "MS_ROLE and RANK_TABLE_FILE are not set"
    lacking = [name for name in ("MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT") if not os.environ.get(name)]
    return f"not set: {', '.join(lacking)}" if lacking else ""


def check_half_precision(level: str, dtype: str) -> None:
    """Check that the device can multiply matrices in the precision that ``AMP`` asks for.

    On CPU the native kernels do it. Where the CPU has no instructions for bfloat16, a warning is logged.

    Args:
        level: The AMP level, "O0", "O1" or "O2".
        dtype: "float16" or "bfloat16".

    Raises:
        UserError: If it can't.
    """
    if level == "O0":
        return
    if native_library() is not None:
        if dtype == "bfloat16" and not bfloat16_supported():
            log.warning(
                "AMP.DTYPE=bfloat16: this CPU has no AVX512-BF16 instructions, so bfloat16 saves no time over O0"
            )
        return
    ones = ms.Tensor([[1.0, 1.0]], getattr(ms, dtype))
    try:
        ms.ops.matmul(ones, ones.T).asnumpy()
    except (RuntimeError, TypeError, ValueError):
        target = ms.get_context("device_target")
        other = "AMP.DTYPE float16, or AMP_OPT_LEVEL O0" if dtype == "bfloat16" else "AMP_OPT_LEVEL O0"
        raise UserError(f"AMP.DTYPE={dtype}: this {target} has no matrix products of that type; use {other}") from None


def clamp_workers(requested: int) -> int:
    """Return the number of data workers, at most one per core: mindspore.dataset refuses more."""
    return max(1, min(requested, usable_cores()))
