"""Callbacks of MindSpore in the training loop, and the one that writes to TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindspore import Tensor
from mindspore.train import Callback, RunContext

from ..errors import UserError, shown
from .train_state import TrainState
from .train_step import Figures


class Arguments(dict):
    """The dictionary that callbacks read, by keys or by attributes, as MindSpore's own is."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Callbacks:
    """Calls every callback at the events of a run; the methods are those of ``mindspore.train.Callback``.

    ``run_context.original_args()`` holds MindSpore's ``batch_num``, ``epoch_num``, ``cur_epoch_num``, ``cur_step_num``,
    ``net_outputs`` (the loss), ``network``, ``train_network``, ``optimizer``, ``train_dataset``, ``metrics`` (after an
    evaluation), ``mode``, ``device_number``, ``dataset_sink_mode`` and ``list_callback``. This project's own are
    ``losses``, ``learning_rate``, ``figures`` (of the step's line in the log, or None) and ``record`` (of the epoch in
    ``metrics.jsonl``). A step ends for the callbacks when its loss has been read, up to one step after its launch: so
    the host does not wait for the device.

    Args:
        callbacks: The callbacks, called in this order.
        arguments: The first content of the dictionary.

    Raises:
        UserError: If one is no ``mindspore.train.Callback``.
    """

    def __init__(self, callbacks: Sequence[Callback], **arguments: Any):
        self.callbacks = checked_callbacks(callbacks)
        self.arguments = Arguments(
            mode="train", dataset_sink_mode=False, list_callback=self.callbacks, figures=None, metrics=None, **arguments
        )
        self.context = RunContext(self.arguments)

    @property
    def stop_requested(self) -> bool:
        """Whether a callback has called ``run_context.request_stop()``."""
        return self.context.get_stop_requested()

    def call(self, event: str) -> None:
        """Call a method of every callback."""
        for callback in self.callbacks:
            getattr(callback, event)(self.context)

    def begin(self, state: TrainState) -> None:
        """Call ``on_train_begin``."""
        self.arguments.update(cur_step_num=state.step, cur_epoch_num=state.epoch)
        self.call("on_train_begin")

    def begin_epoch(self, state: TrainState) -> None:
        """Call ``on_train_epoch_begin``."""
        self.arguments.update(cur_epoch_num=state.epoch + 1)
        self.call("on_train_epoch_begin")

    def end_step(self, step: int, figures: Figures, lr: float, report: dict[str, float] | None = None) -> None:
        """Call ``on_train_step_end`` for the step with this number, from 1.

        Args:
            step: The number.
            figures: Its losses.
            lr: Its learning rate.
            report: The figures of its line in the log, if there is one.
        """
        self.arguments.update(
            cur_step_num=step,
            net_outputs=Tensor(figures.losses[0]),
            losses=figures.losses,
            learning_rate=lr,
            figures=report,
        )
        self.call("on_train_step_end")

    def end_epoch(self, metrics: dict[str, Any], record: dict[str, Any]) -> None:
        """Call ``on_train_epoch_end`` after the evaluation."""
        self.arguments.update(metrics=metrics, record=record)
        self.call("on_train_epoch_end")


def checked_callbacks(callbacks: Any) -> list[Callback]:
    """Return callbacks as a list; raise UserError if one is no ``mindspore.train.Callback``."""
    if callbacks is None:
        return []
    found = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks: {shown(callback)} is no object of a class derived from mindspore.train.Callback"
            )
    return found


class TensorBoard(Callback):
    """Writes the figures of a run to ``tensorboard/`` if tensorboardX is installed.

    Args:
        run_dir: The folder of the run.
    """

    def __init__(self, run_dir: Path):
        super().__init__()
        self.folder, self.writer = run_dir / "tensorboard", None

    def on_train_begin(self, run_context: RunContext) -> None:
        """Open the writer, where a resumed run continues."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            return
        step = run_context.original_args().cur_step_num
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)

    def on_train_step_end(self, run_context: RunContext) -> None:
        """Write the figures of a step that the log reports."""
        arguments = run_context.original_args()
        if arguments.figures is not None:
            self._write(arguments.cur_step_num, arguments.figures)

    def on_train_epoch_end(self, run_context: RunContext) -> None:
        """Write the epoch's record of ``metrics.jsonl``."""
        record = dict(run_context.original_args().record)
        self._write(record.pop("step"), record)

    def on_train_end(self, run_context: RunContext) -> None:
        """Flush the queue of the writer."""
        if self.writer is not None:
            self.writer.close()

    def _write(self, step: int, values: dict[str, Any]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.writer.add_scalar(name, value, step)
            self.writer.flush()
