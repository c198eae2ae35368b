"""The one place that sets MindSpore's device, mode and seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import mindspore as ms
from mindspore import communication

from ..config import Config, to_yaml
from ..errors import UserError
from .ranks import SINGLE_PROCESS, Ranks


def setup_device(target: str, seed: int, jit_level: str = "") -> tuple[str, Ranks]:
    """Graph mode on ``target`` at ``jit_level`` (empty: MindSpore's choice) with all of MindSpore's seeds set.

    Under msrun, or with a rank table, the process joins the others of its job. Gives the target and its place there.
    """
    try:
        if target:
            ms.set_device(target)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device target {target} can't be used on this machine: {reason}") from None
    ms.set_context(mode=ms.GRAPH_MODE)
    if jit_level:
        ms.set_context(jit_config={"jit_level": jit_level})
    ranks = _join() if "MS_ROLE" in os.environ or int(os.environ.get("RANK_SIZE", 1)) > 1 else SINGLE_PROCESS
    ms.set_seed(seed)
    ms.dataset.config.set_seed(seed)
    return ms.get_context("device_target"), ranks


def _join() -> Ranks:
    """Meet the job's other processes. The scheduler's process, which msrun starts as well, stays in here to its end."""
    try:
        communication.init()
    except RuntimeError as error:
        if "spawned" not in str(error):
            raise
        limit = os.environ.get("MS_TOPO_TIMEOUT", "some")
        raise UserError(
            f"not all processes of the job were there within {limit} seconds: check that every node runs the same "
            "command with its own NODE_RANK, and reaches MASTER_ADDR (CLUSTER_TIMEOUT is how long to wait)"
        ) from None
    return Ranks(communication.get_rank(), communication.get_group_size())


def check_same_job(ranks: Ranks, config: Config, files: Iterable[str]) -> None:
    """Raise UserError where the job's processes run other code, another configuration or other ``files``."""
    package = Path(__file__).parents[1]
    code = (path.read_bytes() for path in sorted(package.rglob("*.py")))
    ranks.assert_same_on_all_ranks("the code", code, "bring all nodes to the same version")
    # What only says where things lie may differ from node to node.
    place = dict(output="", local_rank=0, data=replace(config.data, data_path="", val_list="", class_index=""))
    text = to_yaml(replace(config, **place))
    ranks.assert_same_on_all_ranks("the configuration", [text.encode()], "give all nodes the same file and flags")
    names = ("/".join(Path(file).parts[-2:]).encode() for file in files)
    ranks.assert_same_on_all_ranks("the images", names, "give all nodes the same data")


def check_half_precision(level: str, dtype: str) -> None:
    """Raise UserError where the device can't multiply matrices in the precision that ``AMP`` asks for."""
    if level == "O0":
        return
    ones = ms.Tensor([[1.0, 1.0]], getattr(ms, dtype))
    try:
        ms.ops.matmul(ones, ones.T).asnumpy()
    except (RuntimeError, TypeError, ValueError):
        target = ms.get_context("device_target")
        other = "AMP.DTYPE float16, or AMP_OPT_LEVEL O0" if dtype == "bfloat16" else "AMP_OPT_LEVEL O0"
        raise UserError(f"AMP.DTYPE={dtype}: the {target} of this machine has no such products; use {other}") from None


def clamp_workers(wanted: int) -> int:
    """``wanted`` data workers, but no more than there are cores: MindSpore refuses more."""
    return max(1, min(wanted, os.cpu_count() or 1))
