"""The interface between the export command and a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..config.checks import MAX_SIDE
from ..errors import UserError, shown

CONVOLUTIONS = ("unfold", "conv2d")
MOST_ROWS = 2**16


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

    def __post_init__(self):
        suffix = self.output.suffix
        if suffix not in (".onnx", ".mindir"):
            raise UserError(f"--output {self.output}: must end in .onnx or .mindir")
        for flag, value, kind in (("--opset", self.opset, ".onnx"), ("--convolution", self.convolution, ".mindir")):
            if value is not None and suffix != kind:
                raise UserError(f"{flag} is for {kind} files, but --output is {self.output}")
        for flag, value in (("--dynamic-batch", self.dynamic_batch), ("--softmax", self.softmax)):
            if not isinstance(value, bool):
                raise UserError(f"{flag}={shown(value)}: must be True or False")
        sides = (("--img-size", side) for side in self.img_size or ())
        numbers = [("--batch-size", self.batch_size), *sides]
        for flag, value in (*numbers, ("--opset", 1 if self.opset is None else self.opset)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise UserError(f"{flag}={shown(value)}: must be a whole number")
        if not 1 <= self.batch_size <= MOST_ROWS:
            raise UserError(
                f"--batch-size {self.batch_size}: must be at least 1 and at most {MOST_ROWS}; --dynamic-batch allows "
                "any number"
            )
        form = self.convolution
        if form is not None and not (isinstance(form, str) and form in CONVOLUTIONS):
            raise UserError(f"--convolution {shown(self.convolution)}: must be one of {CONVOLUTIONS}")
        for side in self.img_size or ():
            if not 1 <= side <= MAX_SIDE:
                raise UserError(f"--img-size {side}: must be at least 1 and at most {MAX_SIDE}")


def image_size(sides: Sequence[int]) -> tuple[int, int]:
    """Return (height, width) from the side of a square, or from height and width.

    Raises:
        UserError: There are more than two numbers, or none.
    """
    if not 1 <= len(sides) <= 2:
        raise UserError(f"--img-size {' '.join(map(str, sides))}: expected the side of a square, or height and width")
    return sides[0], sides[-1]


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
