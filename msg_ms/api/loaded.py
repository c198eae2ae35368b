"""One object from one file: a trained model with everything that its checkpoint knows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn
from PIL import Image

from ..checkpoint import config_of_checkpoint, load_for_inference
from ..commands.predict import list_images
from ..config import Config, load_config
from ..deploy.exporter import MOST_ROWS, Exported, ExportOptions, image_size
from ..engine.checkpoint_run import CheckpointRun
from ..engine.log import progress_bar
from ..engine.predictor import Prediction, PredictOptions, Unreadable
from ..engine.runtime import start
from ..engine.task import Metrics
from ..errors import UserError, printable, shorten, shown
from ..files import as_path
from ..models.arguments import number, whole_number, whole_numbers
from ..tasks import build_task


def load(
    path: str | os.PathLike[str],
    cfg: str | os.PathLike[str] | Mapping[str, Any] | Config | None = None,
    device_target: str | None = None,
) -> TrainedModel:
    """Load a trained model, ready for predictions, evaluation and export.

    Args:
        path: A checkpoint: ``best.ckpt``, ``ckpt_<step>.ckpt``, or weights alone.
        cfg: YAML file or dictionary whose keys replace those that the checkpoint stores, such as
            ``{"INFERENCE_PRECISION": "bfloat16"}``. Weights that a converter wrote store none and need it.
        device_target: "CPU", "GPU" or "Ascend"; None for MindSpore's choice.

    Raises:
        UserError: If the file can't be read, has no configuration, or ``cfg`` describes another model.
    """
    file = as_path("path", path)
    if device_target is not None and not isinstance(device_target, str):
        raise UserError(f"device_target={shown(device_target)}: must be 'CPU', 'GPU', 'Ascend' or None")
    config = config_of_checkpoint(
        file, cfg, MODEL__RESUME=str(file), EVAL_MODE=True, DEVICE_TARGET=device_target or None
    )
    return TrainedModel(file, config)


class TrainedModel:
    """A trained model of any task; ``msg_ms.load`` returns it.

    Args:
        path: The checkpoint.
        config: Its configuration.

    Attributes:
        path: The checkpoint.
        config: Its configuration.

    Raises:
        UserError: If the weights do not fit the configuration.
    """

    def __init__(self, path: str | os.PathLike[str], config: Config):
        self.path = as_path("path", path)
        runtime = start(as_config(config), build_task, uses_data=False)
        self.config, self.task = runtime.config, runtime.task
        self._options: PredictOptions | None = None
        self.model, self.metadata = self._load()

    def __repr__(self) -> str:
        """Return the model's name, its classes and the file."""
        return f"TrainedModel({self.config.model.name}, {self.config.model.num_classes} classes, {str(self.path)!r})"

    def _load(self) -> tuple[nn.Cell, dict[str, Any]]:
        """Return the model with its weights, in evaluation mode, and the metadata of the file."""
        model = self.task.build_model().set_train(False)
        lines, metadata = load_for_inference(model, self.path)
        _report(lines)
        return model, metadata

    @cached_property
    def classes(self) -> list[str]:
        """Names of the classes in the order of their labels."""
        return list(self.task.output_names(self.metadata))

    def predict(
        self, images: Any, *, batch_size: int | None = None, score_thr: float | None = None
    ) -> list[Prediction]:
        """Make predictions for images, which are read, resized and normalised as in evaluation.

        Args:
            images: One or several of: an image file, a folder that is searched recursively, a PIL image, an array
                uint8 RGB (H, W, 3) or grey (H, W).
            batch_size: Images at a time.
            score_thr: For detectors: least score of an object.

        Returns:
            A prediction for each image, in their order: ``ClassificationPrediction`` with ``name``, ``probability`` and
            ``probabilities``, or ``DetectionPrediction`` with ``boxes``, ``scores``, ``labels`` and ``masks``. Both
            have ``plot()``.

        Raises:
            UserError: If an image can't be read, or is of another type.
        """
        batch_size = None if batch_size is None else whole_number("batch_size", batch_size, 1, MOST_ROWS)
        score_thr = None if score_thr is None else number("score_thr", score_thr, 0, 1)
        sources = [source for image in _as_list(images) for source in _sources(image)]
        self._prepare(PredictOptions(batch_size=batch_size, score_thr=score_thr))
        results = []
        for result, _ in progress_bar(self._predictor.predict(sources), len(sources), "predict"):
            if isinstance(result, Unreadable):
                raise UserError(f"can't read {result.file}: {result.reason}")
            results.append(result)
        return results

    def _prepare(self, options: PredictOptions) -> None:
        """Build the predictor; it changes its model, so ``model`` is another one."""
        if options != self._options:
            self._predictor = self.task.predictor(self._load()[0], self.metadata, options)
            self._options = options

    def evaluate(self, data_path: str | os.PathLike[str], *, fast: bool = False) -> Metrics:
        """Return the metrics on the validation data of a data set, as eval.py prints them.

        Args:
            data_path: Folder of the data set.
            fast: Use the algorithms of ``predict``, whose results differ from those of validation by rounding.

        Raises:
            UserError: If the data can't be read or have other classes, or the outputs are not finite.
        """
        folder = as_path("data_path", data_path)
        runtime = start(load_config(self.config, DATA__DATA_PATH=str(folder)), build_task)
        run = CheckpointRun(runtime, runtime.task.build_model(), lambda line: _report([line]))
        return run.evaluate(fast).require_finite()

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        batch_size: int = 1,
        dynamic_batch: bool = False,
        softmax: bool = False,
        img_size: int | Sequence[int] | None = None,
        opset: int | None = None,
        convolution: str | None = None,
    ) -> Exported:
        """Write the model for other programs, and compare the file with the model.

        Args:
            path: File to write, ``.onnx`` or ``.mindir``.
            batch_size: Images per run.
            dynamic_batch: Accept any number of images per run instead.
            softmax: Return probabilities instead of logits.
            img_size: Side of the images, or height and width; None for the configuration's.
            opset: ONNX operator set.
            convolution: Form of the convolutions in a MindIR, "unfold" or "conv2d".

        Returns:
            The file's inputs and outputs, and the result of the comparison, in words.

        Raises:
            UserError: If an argument does not suit the model, or the outputs differ. No file is left.
        """
        several = isinstance(img_size, list | tuple | range | np.ndarray)
        sides = whole_numbers("img_size", img_size) if several else (img_size,)
        size = None if img_size is None else image_size([whole_number("img_size", side) for side in sides])
        file = as_path("path", path)
        options = ExportOptions(file, batch_size, dynamic_batch, softmax, size, opset, convolution)
        return self.task.exporter().export(self.path, options, lambda line: _report([line]))


def as_config(value: Any) -> Config:
    """Return a configuration; raise UserError for anything else."""
    if not isinstance(value, Config):
        raise UserError(f"config={shown(value)}: must be a Config, as msg_ms.config.load_config returns it")
    return value


def _as_list(images: Any) -> list[Any]:
    if isinstance(images, str | os.PathLike | np.ndarray | Image.Image):
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, bytes | Mapping):
        raise UserError(f"images={shown(images)}: {EXPECTED}")
    return list(images)


EXPECTED = "expected image files, folders, PIL images, or arrays uint8 RGB (H, W, 3)"


def _sources(image: Any) -> Sequence[Path | np.ndarray]:
    """Return the files of a path, or the pixels of an image in memory."""
    if isinstance(image, str | os.PathLike):
        files, unreadable = list_images([as_path("images", image)])
        if unreadable:
            raise UserError(f"can't read {shorten([f'{u.file} ({u.reason})' for u in unreadable])}")
        return files
    if isinstance(image, Image.Image):
        try:
            image = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:  # PIL decodes files only now
            raise UserError(f"a PIL image can't be decoded: {printable(str(error), 200)}") from None
    if not isinstance(image, np.ndarray):
        raise UserError(f"images: {shown(image)}: {EXPECTED}")
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, -1)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(f"images: an array of {image.dtype} with shape {image.shape}: {EXPECTED}")
    return [np.ascontiguousarray(image)]


def _report(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
