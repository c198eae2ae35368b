"""msg_ms.train: the engine of train.py, callbacks, stopping, and the run as an object."""

import contextlib
import inspect
import io
import json
import os
import re
import signal

import numpy as np
import pytest
import yaml
from mindspore.train import Callback, LossMonitor, TimeMonitor
from PIL import Image
from support.small_run import CONFIG, write_images
from support.wrong_values import VALUES, try_values

import msg_ms
from msg_ms import UserError
from msg_ms.checkpoint import read_checkpoint
from msg_ms.config import load_config

TREE = yaml.safe_load(CONFIG)


class Recorder(Callback):
    """Records the events and what a callback may read; stops after a step, or sends a signal there."""

    def __init__(self, stop_after=0, number=None):
        super().__init__()
        self.events, self.losses, self.stop_after, self.number = [], [], stop_after, number

    def on_train_begin(self, run_context):
        self.events.append("begin")

    def epoch_begin(self, run_context):
        self.events.append(f"epoch {run_context.original_args()['cur_epoch_num']}")

    def on_train_step_end(self, run_context):
        arguments = run_context.original_args()
        self.events.append(arguments.cur_step_num)
        self.losses.append(float(arguments.net_outputs.asnumpy()))
        if arguments.cur_step_num == self.stop_after:
            if self.number is None:
                run_context.request_stop()
            else:
                os.kill(os.getpid(), self.number)

    def epoch_end(self, run_context):
        self.events.append(sorted(run_context.original_args().metrics))

    def on_train_end(self, run_context):
        self.events.append("end")


def weights(run):
    return {name: value.tobytes() for name, value in read_checkpoint(run.checkpoint)[0].items()}


def number_of(run):
    return int(re.search(r"\d+", run.checkpoint.name)[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_images(folder)
    return folder / "data"


@pytest.fixture(scope="module")
def whole(data):
    """An undisturbed run with callbacks, its recorder, and what it printed."""
    recorder, printed = Recorder(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        callbacks = [LossMonitor(2), TimeMonitor(), recorder]
        run = msg_ms.train(TREE, callbacks, data_path=data, output=data.parent / "out", tag="whole")
    return run, recorder, printed.getvalue()


def test_callbacks_hear_every_event_in_order(whole):
    run, recorder, printed = whole
    metrics = ["loss", "top1", "top5"]
    assert recorder.events == ["begin", "epoch 1", 1, 2, 3, metrics, "epoch 2", 4, 5, 6, metrics, "end"]
    assert np.mean(recorder.losses[3:]) == pytest.approx(run.history["train_loss"][1], rel=1e-6)
    assert "epoch: 1 step: 2, loss is" in printed and "Train epoch time:" in printed


def test_a_run_is_an_object(whole, data):
    run, out = whole[0], data.parent / "out"
    records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert run.folder == out / "small" / "whole" and run.best == run.folder / "best.ckpt"
    assert run.history["top1"].tolist() == [record["top1"] for record in records]
    assert run.history["step"].tolist() == [3, 6] and run.checkpoint.name == "ckpt_00000006.ckpt"
    assert "top1" in repr(run) and "primary" not in run.history
    model = run.load()
    assert model.evaluate(data).values["top1"] == run.history["top1"].max()
    # A finished run is not trained again, and its folder is free.
    assert msg_ms.train(TREE, data_path=data, output=out, tag="whole").history["epoch"].tolist() == [1, 2]


def test_a_stopped_run_saves_and_the_same_call_continues(whole, data):
    run = msg_ms.train(TREE, Recorder(stop_after=1), data_path=data, tag="cut")
    assert 1 <= number_of(run) <= 3 and not run.history
    with pytest.raises(UserError, match=r"has no best.ckpt: no epoch was finished"):
        run.load()
    run = msg_ms.train(TREE, Recorder(stop_after=4, number=signal.SIGINT), data_path=data, tag="cut")  # Ctrl-C
    assert 4 <= number_of(run) <= 6 and run.history["epoch"].tolist() == [1]
    run = msg_ms.train(load_config(TREE), None, data_path=data, tag="cut")
    assert weights(run) == weights(whole[0])


def grey_tree(start, **train):
    """A configuration for grey images that starts from weights for colour."""
    model = {**TREE["MODEL"], "MSG": {**TREE["MODEL"]["MSG"], "IN_CHANS": 1}, "PRETRAINED": str(start)}
    return {**TREE, "MODEL": model, "TRAIN": {**TREE["TRAIN"], **train}}


def test_early_stopping_ends_a_run_whose_metric_stays(whole, data):
    tree = grey_tree(whole[0].best, EPOCHS=9, EARLY_STOPPING=2, BASE_LR=1e-12)
    run = msg_ms.train(tree, data_path=data)
    log = (run.folder / "log_rank0.txt").read_text("utf-8")
    assert run.history["epoch"].tolist() == [1, 2, 3] and "no better top-1 for 2 of 9 epochs: the run ends" in log
    assert "best.ckpt: first layer adapted from 3 to 1 channels" in log
    again = msg_ms.train(tree, data_path=data)
    assert again.history["epoch"].tolist() == [1, 2, 3]


@pytest.mark.slow
def test_grey_models_evaluate_predict_and_export(whole, data):
    run = msg_ms.train(grey_tree(whole[0].best), data_path=data, tag="grey")
    model = run.load()
    assert model.evaluate(data).values["top1"] == run.history["top1"].max()
    found = model.predict(data / "val" / "0")
    (grey,) = model.predict(Image.open(found[0].file).convert("L"))
    # Luminance before or after resizing.
    assert grey.probabilities == pytest.approx(found[0].probabilities, abs=1e-3) and model.model.in_chans == 1
    onnx = pytest.importorskip("onnx")
    exported = model.export(data.parent / "grey.onnx")
    assert exported.inputs == "images, float32 1,1,32,32"
    metadata = {entry.key: entry.value for entry in onnx.load(data.parent / "grey.onnx").metadata_props}
    steps = json.loads(str(model.metadata["preprocessing"]))
    for key, value in {"channels": "L", "mean": "0.449", "std": "0.226"}.items():
        assert metadata[key] == steps[key] == value


def test_image_files_have_three_channels_or_one(data):
    tree = {**TREE, "MODEL": {**TREE["MODEL"], "MSG": {**TREE["MODEL"]["MSG"], "IN_CHANS": 2}}}
    with pytest.raises(UserError, match=r"IN_CHANS=2: image files are read with 3 \(RGB\) or 1 \(grey\) channels"):
        msg_ms.train(tree, data_path=data)


FINE = {  # values of this kind are right for the argument
    "config": ({},),
    "callbacks": (None, []),
    "path": (),
    "cfg": (None, {}),
    "device_target": (None, ""),
    "data_path": (),
    "output": (None, "x"),
    "tag": (None, "x"),
    "images": ([],),
    "batch_size": (None,),
    "score_thr": (None, 0),
    "dynamic_batch": (True,),
    "softmax": (True,),
    "fast": (True,),
    "img_size": (None,),
    "opset": (None,),
    "convolution": (None,),
}


@pytest.mark.parametrize("name", ["load", "train", "predict", "evaluate", "export", "Run", "TrainedModel"])
def test_wrong_arguments_end_in_an_error_of_ours(name, whole, data, tmp_path):
    run = whole[0]
    right = {
        "load": (msg_ms.load, {"path": run.best}),
        "Run": (msg_ms.Run, {"config": run.config}),
        "TrainedModel": (msg_ms.TrainedModel, {"path": run.best, "config": run.config}),
        "train": (msg_ms.train, {"config": TREE, "data_path": data, "output": data.parent / "out", "tag": "whole"}),
    }
    if name not in right:
        model = run.load()
        arguments = {
            "predict": {"images": data / "val"},
            "evaluate": {"data_path": data},
            "export": {"path": "x.mindir"},
        }
        right[name] = (getattr(model, name), arguments[name])
    function, arguments = right[name]
    before = sorted(tmp_path.rglob("*"))
    for parameter in inspect.signature(function).parameters:
        fine = [] if name in ("Run", "TrainedModel") else FINE[parameter]
        wrong = [v for v in VALUES if not any(type(v) is type(right) and v == right for right in fine)]
        refused, failures = try_values(function, arguments, [parameter], wrong)
        assert not failures and refused == len(wrong), "\n".join([parameter, *failures])
    assert sorted(tmp_path.rglob("*")) == before
