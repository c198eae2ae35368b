"""Draw a run's curves: python tools/plot_run.py output/<model name>/<tag> writes curves.png there."""

from __future__ import annotations

import argparse
from pathlib import Path

from msg_ms.cli import run_command_line
from msg_ms.engine.log import read_metrics
from msg_ms.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the curves of a run from its metrics.jsonl.")
    parser.add_argument("run", type=Path, help="folder of the run")
    run: Path = parser.parse_args().run
    records = read_epochs(run / "metrics.jsonl")
    draw(records, run)
    print(f"{run / 'curves.png'}: {len(records)} epochs")


def read_epochs(path: Path) -> list[dict[str, float]]:
    """One record per epoch; where a resumed run wrote an epoch again, the later one."""
    try:
        records = {record["epoch"]: record for record in read_metrics(path) if "epoch" in record}
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}; name the folder that train.py wrote to") from None
    if not records:
        raise UserError(f"{path} holds no finished epoch yet")
    return [records[epoch] for epoch in sorted(records)]


def draw(records: list[dict[str, float]], run: Path) -> None:
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is missing: pip install 'msg-ms[plots]'") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    epochs = [r["epoch"] for r in records]
    figure, (loss, accuracy, rate) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    loss.plot(epochs, [r["train_loss"] for r in records], label="training, smoothed labels")
    loss.plot(epochs, [r["loss"] for r in records], label="evaluation")
    loss.set(title="cross entropy", xlabel="epoch")
    loss.legend()
    for name, label in (("top1", "top-1"), ("top5", "top-5")):
        accuracy.plot(epochs, [r[name] for r in records], label=label)
    best = max(records, key=lambda r: r["top1"])
    accuracy.plot(best["epoch"], best["top1"], "o", label=f"best: {best['top1']:.2f}% in epoch {best['epoch']}")
    accuracy.set(title="accuracy, %", xlabel="epoch")
    accuracy.legend(loc="lower right")
    rate.plot(epochs, [r["rate"] for r in records])
    rate.set(title="learning rate at the epoch's end", xlabel="epoch")
    for axis in (loss, accuracy, rate):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(str(run))
    figure.savefig(run / "curves.png", dpi=120)


if __name__ == "__main__":
    run_command_line(main)
