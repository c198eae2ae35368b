"""tools/plot_run.py: records of any task, old and new, and one-line errors."""

import importlib.util
import json

import cv2
import pytest
from conftest import ROOT

SPEC = importlib.util.spec_from_file_location("plot_run", ROOT / "tools" / "plot_run.py")
plot_run = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(plot_run)

OLD = {"train_loss": 2.0, "rate": 1e-3, "loss": 1.0, "top1": 50.0, "top5": 90.0, "skipped": 0}
NEW = {"train_loss": 2.0, "train_loss/box": 1.5, "lr": 1e-3, "box_ap": 30.0, "mask_ap": 20.0, "primary": "box_ap"}


class Axes:
    """Records the labels and points of the curves."""

    def __init__(self):
        self.curves = {}

    def plot(self, x, y, *style, label, **keywords):
        self.curves[label] = (x, y)

    def set_title(self, title):
        self.title = title

    def legend(self, **keywords):
        pass


def draw(function, *records):
    axes = Axes()
    function(axes, [{"epoch": epoch, "step": 10 * epoch, **record} for epoch, record in enumerate(records, 1)])
    return axes.curves


def test_metrics_are_found_by_name_with_the_primary_one_first():
    curves = draw(plot_run.draw_metrics, OLD, {**OLD, "loss": 0.9}, {**OLD, "top1": 40.0})
    assert list(curves) == ["top-1 (%)", "top-5 (%)", "best top-1 (%): 50.00 in epoch 2"]  # the lower loss wins
    assert curves["top-1 (%)"] == ((1, 2, 3), (50.0, 50.0, 40.0))
    curves = draw(plot_run.draw_metrics, {"mask_ap": 1.0, **NEW}, {**NEW, "ema_box_ap": 31.0})
    assert list(curves) == ["box_ap", "mask_ap", "EMA box_ap", "best box_ap: 30.00 in epoch 1"]
    assert curves["EMA box_ap"] == ((2,), (31.0,))
    assert draw(plot_run.draw_metrics, {"train_loss": 1.0}) == {}


def test_undefined_metrics_are_left_out():
    curves = draw(plot_run.draw_metrics, {**NEW, "box_ap": None}, NEW, {**NEW, "box_ap": None})
    assert curves["box_ap"] == ((2,), (30.0,)) and "best box_ap: 30.00 in epoch 2" in curves
    assert list(draw(plot_run.draw_metrics, {**NEW, "box_ap": None, "mask_ap": None})) == []


def test_losses_by_name():
    assert list(draw(plot_run.draw_losses, OLD)) == ["training", "evaluation"]
    assert list(draw(plot_run.draw_losses, NEW)) == ["training", "training, box"]


@pytest.mark.parametrize("record", [OLD, NEW], ids=["old", "new"])
def test_the_tool_draws_a_run(record, command, tmp_path):
    pytest.importorskip("matplotlib")
    lines = [json.dumps({"epoch": epoch, "step": 10 * epoch, **record}) for epoch in (1, 2, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"epoch": 3, "st', encoding="utf-8")
    assert command("tools/plot_run.py", tmp_path).stdout == f"{tmp_path / 'curves.png'}: 2 epochs\n"
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 10


def test_errors_are_one_line(command, tmp_path):
    assert "name the folder that train.py wrote to" in command("tools/plot_run.py", "gone", status=2).stderr
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    assert command("tools/plot_run.py", ".", status=2).stderr == "error: metrics.jsonl has no finished epoch yet\n"


@pytest.mark.slow
def test_a_picture_of_others_is_not_replaced(command, tmp_path):
    record = {"epoch": 1, "step": 2, "loss": 1.0, "lr": 0.1, "top1": 50.0}
    run = tmp_path / "a $x^ run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(
        json.dumps(record) + "\n" + json.dumps({**record, "epoch": [1]}) + "\n", encoding="utf-8"
    )
    for _ in range(2):  # its own drawing is replaced
        command("tools/plot_run.py", run)
    (run / "curves.png").write_bytes(b"mine")
    error = command("tools/plot_run.py", run, status=2).stderr
    assert "curves.png exists and is not a drawing of this program" in error
    assert (run / "curves.png").read_bytes() == b"mine"
