"""The tasks that the engine can train: one module per task."""

from .build import TASKS, build_task

__all__ = ["TASKS", "build_task"]
