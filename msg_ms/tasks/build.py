"""The task that a configuration names. Nothing else reads the key ``TASK``."""

from __future__ import annotations

from collections.abc import Callable

from ..config import Config, installed_tasks
from ..engine.task import Task
from .classification import ClassificationTask
from .detection import DetectionTask

TASKS: dict[str, Callable[[Config], Task]] = {"classification": ClassificationTask, "detection": DetectionTask}


def build_task(config: Config) -> Task:
    """Return the task that ``TASK`` names: one of ``TASKS``, or one of an installed package.

    A package adds a task by an entry point of the group ``msg_ms.tasks``, whose object is called with the
    configuration.

    Raises:
        UserError: If the task does not support the configuration.
    """
    own = TASKS.get(config.task)
    return own(config) if own is not None else installed_tasks()[config.task].load()(config)
