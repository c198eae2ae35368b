"""The common part of tasks with named classes: checkpoints hold the names, which are compared with the data's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import Metadata
from ..config import Config
from ..data.images.class_names import (
    CLASSES_KEY,
    ClassName,
    class_order_warning,
    default_class_names,
    read_class_names,
    stored_classes,
)
from ..engine.outputs import EvalOutputs
from ..engine.task import Task
from ..errors import UserError, shorten
from ..files import readable
from ..report import check_report


class ClassesTask(Task):
    """A task whose data names its classes. Subclasses implement ``class_names`` as well.

    Attributes:
        config: The whole configuration.
        classes_title: The word for the classes of the data, in the plural.
        comparison: The beginning of "... different classes", for metrics on other classes than those of training.
    """

    config: Config
    classes_title: str
    comparison: str

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the data's classes in the order of their labels."""
        raise NotImplementedError

    def metadata(self) -> dict[str, str]:
        """Return the names of the classes."""
        return {CLASSES_KEY: json.dumps(list(self.class_names))}

    def check_resume(self, path: Path, metadata: Metadata) -> None:
        """Raise UserError if the checkpoint's classes are not those of the data."""
        difference = self._class_difference(metadata)
        if difference:
            raise UserError(f"can't resume from {path}: {difference}; start a new run (--pretrained and another --tag)")

    def check_inference(self, path: Path, metadata: Metadata) -> Sequence[str]:
        """Return a line if the checkpoint's classes are not those of the data."""
        difference = self._class_difference(metadata)
        return [f"warning: {path}: {difference}; {self.comparison} different classes"] if difference else []

    def check_outputs(self, outputs: EvalOutputs) -> None:
        """Raise UserError if the report can't be written, or would replace the file of results."""
        if outputs.report is None:
            return
        check_report(outputs.report)
        if outputs.results is not None and outputs.report.resolve() in outputs.results.resolve().parents:
            raise UserError(
                f"--results {outputs.results}: is in the folder of --report, which is written as a whole; name a "
                "file elsewhere"
            )

    def output_names(self, metadata: Metadata) -> Sequence[str]:
        """Return the readable names of a checkpoint's classes."""
        return [name.name for name in self.names_for_predictions(None, metadata)[0]]

    def names_for_predictions(self, given: Path | None, metadata: Metadata) -> tuple[list[ClassName], list[str]]:
        """Return the names of a model's classes in the order of their labels.

        Args:
            given: File or folder with the names, of ``--classes``; None for those of the checkpoint.
            metadata: That of the checkpoint.

        Returns:
            The names, and lines on differences between the file and the checkpoint.

        Raises:
            UserError: The file can't be read, or has another number of names.
        """
        count, stored = self.config.model.num_classes, str(metadata.get(CLASSES_KEY, ""))
        if given is None:
            return default_class_names(count, stored), []
        names = read_class_names(given, count, self.config.data.class_index)
        return names, class_order_warning(names, stored)

    def _class_difference(self, metadata: Metadata) -> str:
        """Return how the classes of the data differ from those of a checkpoint; empty if they do not."""
        trained = stored_classes(str(metadata.get(CLASSES_KEY, "")))
        pairs = enumerate(zip(self.class_names, trained))  # noqa: B905
        different = [f"{i}: {here} here, {there} there" for i, (here, there) in pairs if here != there]
        if not different:
            return ""
        title = self.classes_title
        return f"the {title} of the data are not those that it was trained with ({shorten(different)})"


def class_record(names: Sequence[ClassName], label: int) -> dict[str, Any]:
    """Return a class for JSON: label, class folder and readable name."""
    return {"label": label, "class": readable(names[label].folder), "name": readable(names[label].name)}
