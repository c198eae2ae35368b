"""What a training step costs beside its graph: reads of device values, collectives, bytes to the device."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from mindspore import Tensor
from support import toy_task
from support.small_run import CONFIG, write_images
from test_ranks import launch

from msg_ms.config import load_config
from msg_ms.data import Shard
from msg_ms.engine import train_step
from msg_ms.engine.optim import build_optimizer
from msg_ms.tasks import build_task

STEPS, PRINTED, BATCH = 12, 5, 8  # per epoch of the toy task on one rank


@pytest.mark.parametrize("ranks", (1, pytest.param(2, marks=pytest.mark.slow)))
def test_a_step_is_read_once_and_late_and_gathers_nothing(ranks, tmp_path):
    (tmp_path / "toy.yaml").write_text(toy_task.CONFIG, "utf-8")
    flags = ("--cfg", "toy.yaml", "--data-path", ".", "--opts", "PRINT_FREQ", str(PRINTED))
    launch(ranks, "count_reads.py", ROOT / "train.py", *flags, cwd=tmp_path)
    steps = STEPS // ranks
    # The first step, the printed ones and the last one are read at once.
    waits = len({1, steps, *range(PRINTED, steps + 1, PRINTED)})
    widths = [5, 3] * (steps // 2)  # the toy's batches: x (8, width) and y (8,)
    inputs = sum(4 * BATCH * (width + 1) for width in widths) + 8 * steps  # lr and stop request
    for rank in range(ranks):
        counts = json.loads((tmp_path / f"counts_rank{rank}.json").read_text("utf-8"))
        assert counts == {"reads": steps, "waits": waits, "gathers": 0, "bytes": inputs, "steps": steps}


def first_step(monkeypatch, *options):
    """Return loss and norm of the small run's first step, and the bytes that it sends."""
    config = load_config("small.yaml", [*options, "AUG.MIXUP", "0.8"], DATA__DATA_PATH="data")
    task, sent = build_task(config), []
    model = task.build_model()
    for parameter in model.get_parameters():
        values = np.random.RandomState(len(parameter.name)).randn(*parameter.shape) / 10
        parameter.set_data(Tensor(values.astype(np.float32)))
    optimizer = build_optimizer(config.train, model.trainable_params())
    gradients = train_step.LossAndGradients(task.loss_cell(model), optimizer.targets)
    step = train_step.TrainStep(gradients, train_step.OptimizerStep(optimizer, 5.0)).set_train()
    batch = next(task.train_data(Shard(), 1).batches(0, 1))

    def counted(value, *args):
        tensor = Tensor(value, *args)
        sent.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(train_step, "Tensor", counted)
    (loss,), norm = step.run([batch], 1e-3)
    monkeypatch.undo()
    return loss, norm, sum(sent)


def test_uint8_images_are_a_quarter_of_the_bytes_and_train_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(Path())
    Path("small.yaml").write_text(CONFIG, encoding="utf-8")
    config = load_config("small.yaml")
    batch, size, classes = config.data.batch_size, config.data.img_size, config.model.num_classes
    pixels = batch * 3 * size * size
    others = 4 * (batch * classes + 2 * 2 * batch) + 8  # labels, noise of two blocks; lr and stop request
    loss, norm, sent = first_step(monkeypatch)
    monkeypatch.chdir(tmp_path)
    raw_loss, raw_norm, raw_sent = first_step(monkeypatch, "DATA.NORMALIZE_ON_DEVICE", "True")
    assert sent == 4 * pixels + others
    assert raw_sent == pixels + others + 4 * 5  # the mixing
    assert abs(raw_loss - loss) < 1e-5 and abs(raw_norm - norm) < 1e-4 * norm
