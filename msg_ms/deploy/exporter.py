"""The interface between the export command and a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ExportOptions:
    """The wishes of the person who exports a model; None and False leave the choice to the task.

    Attributes:
        output: File to write; its suffix is the format, ``.onnx`` or ``.mindir``.
        batch_size: Samples per run.
        dynamic_batch: Whether any number of samples per run is asked for instead.
        softmax: Whether probabilities are asked for instead of logits.
        img_size: Height and width of the images.
        opset: ONNX operator set.
        convolution: Form of the convolutions in a MindIR.
    """

    output: Path
    batch_size: int = 1
    dynamic_batch: bool = False
    softmax: bool = False
    img_size: tuple[int, int] | None = None
    opset: int | None = None
    convolution: str | None = None


@dataclass(frozen=True)
class Exported:
    """A file that was written and compared with the model.

    Attributes:
        inputs: Names, types and shapes of its inputs, in words.
        outputs: The same of its outputs.
        checked: The result of the comparison.
    """

    inputs: str
    outputs: str
    checked: str


class Exporter(Protocol):
    """Writes the model of a configuration for other programs."""

    def export(self, checkpoint: Path, options: ExportOptions, log: Callable[[str], None]) -> Exported:
        """Write a checkpoint's model, and compare the file with it.

        Args:
            checkpoint: The trained weights.
            options: The file and its form.
            log: Is called with each line on a change of the weights.

        Raises:
            UserError: The options do not suit the model, or the outputs differ. No file is left.
        """
