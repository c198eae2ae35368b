"""The set-up that training, evaluation and prediction share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import Config, to_yaml
from ..data.pipeline import Shard
from ..models.precision import default_level
from .compile_cache import CompileCache, build_cache
from .device import check_half_precision, clamp_workers, setup_device
from .ranks import Ranks
from .task import Task


@dataclass(frozen=True)
class Runtime:
    """A process that is ready to build its model.

    Attributes:
        config: The configuration, with the precision chosen for the device.
        task: The task of the configuration.
        target: "CPU", "GPU" or "Ascend".
        ranks: The place of this process in its job.
        cache: The cache of compiled graphs, or None.
    """

    config: Config
    task: Task
    target: str
    ranks: Ranks
    cache: CompileCache | None = None

    @property
    def shard(self) -> Shard:
        """The part of the data of this process."""
        return Shard(self.ranks.rank, self.ranks.world_size)

    @property
    def workers(self) -> int:
        """Threads of a data pipeline."""
        return clamp_workers(self.config.data.num_workers)

    @property
    def devices(self) -> str:
        """The devices of the job, for the log."""
        return self.target if self.ranks.world_size == 1 else f"{self.ranks.world_size} x {self.target}"


def start(config: Config, build_task: Callable[[Config], Task], uses_data: bool = True) -> Runtime:
    """Set up device, seeds, ranks, precision, task and compile cache.

    Args:
        config: The configuration.
        build_task: Returns the task of a configuration.
        uses_data: Whether the task's data are read, so that all ranks must have the same.

    Raises:
        UserError: If the device, the configuration or the data can't be used, or the ranks differ.
    """
    target, ranks = setup_device(config.device_target, config.seed, config.jit_level)
    config = replace(config, amp_opt_level=config.amp_opt_level or default_level(target))
    check_half_precision(config.amp_opt_level, config.amp.dtype)
    task = build_task(config)
    if uses_data:
        task.prepare(ranks)
    check_same_job(ranks, config, task.fingerprint() if uses_data else ())
    return Runtime(config, task, target, ranks, build_cache(config, ranks))


def check_same_job(ranks: Ranks, config: Config, data: Iterable[bytes]) -> None:
    """Check that all ranks run the same code and configuration on the same data.

    Raises:
        UserError: If they differ; the message names the ranks and the remedy.
    """
    package = Path(__file__).parents[1]
    code = (path.read_bytes() for path in sorted(package.rglob("*.py")))
    ranks.assert_same_on_all_ranks("the code", code, "install the same version on all nodes")
    text = to_yaml(config.without_paths())
    ranks.assert_same_on_all_ranks("the configuration", [text.encode()], "pass the same file and flags on all nodes")
    ranks.assert_same_on_all_ranks("the data", data, "copy the same data to all nodes")
