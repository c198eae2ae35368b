"""The task that a configuration names. Nothing else reads the key ``TASK``."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config
from ..engine.task import Task
from .classification import ClassificationTask
from .detection import DetectionTask

TASKS: dict[str, Callable[[Config], Task]] = {"classification": ClassificationTask, "detection": DetectionTask}


def build_task(config: Config) -> Task:
    """Return the task that ``TASK`` names.

    Raises:
        UserError: If the task does not support the configuration.
    """
    return TASKS[config.task](config)
