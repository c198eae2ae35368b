"""Draw a run's curves: python tools/plot_run.py output/<model name>/<tag> writes curves.png there.

The curves are the losses, the learning rate, and all metrics of the evaluation in metrics.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from msg_ms.cli import path_argument, run_command_line
from msg_ms.engine.log import read_metrics
from msg_ms.errors import UserError
from msg_ms.files import atomic_write, readable
from msg_ms.visualize.contact_sheet import SOFTWARE, check_ours

Record = dict[str, Any]
LABELS = {
    **{"top1": "top-1 (%)", "top5": "top-5 (%)"},
    **{
        f"{kind}_mAP{level}": f"{word} AP{level[1:]}"
        for kind, word in (("bbox", "box"), ("segm", "mask"))
        for level in ("", "_50", "_75")
    },
}
LEGEND = "x-small"  # a detector has twelve losses
NO_METRICS = {"epoch", "step", "train_loss", "loss", "ema_loss", "lr", "rate", "skipped", "primary"}


def main() -> None:
    """Draw the curves of one run."""
    parser = argparse.ArgumentParser(description="Draw the curves of a run from its metrics.jsonl.")
    parser.add_argument("run", type=path_argument, help="folder of the run")
    run: Path = parser.parse_args().run
    records = read_epochs(run / "metrics.jsonl")
    check_ours(run / "curves.png")
    draw(records, run)
    print(f"{run / 'curves.png'}: {len(records)} epochs")


def read_epochs(path: Path) -> list[Record]:
    """Read one record per epoch; if a resumed run wrote an epoch twice, the last record counts."""
    try:
        records = {record["epoch"]: record for record in read_metrics(path) if is_number(record.get("epoch"))}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"can't read {path}: {reason}; name the folder that train.py wrote to") from None
    if not records:
        raise UserError(f"{path} has no finished epoch yet")
    return [records[epoch] for epoch in sorted(records)]


def draw(records: list[Record], run: Path) -> None:
    """Write ``curves.png`` with three panels: losses, metrics and learning rate."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("matplotlib is missing: pip install 'msg-ms[plots]'") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (losses, metrics, lr) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    draw_losses(losses, records)
    draw_metrics(metrics, records)
    plot(lr, records, "lr" if any("lr" in record for record in records) else "rate", "learning rate")
    lr.set_title("learning rate at the end of the epoch")
    for axes in (losses, metrics, lr):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(readable(run), parse_math=False)
    with atomic_write(run / "curves.png") as temporary:
        figure.savefig(temporary, dpi=120, metadata=dict([SOFTWARE]))


def draw_losses(axes, records: list[Record]) -> None:
    """Draw the losses of training and evaluation, and the parts of a training loss that has several."""
    plot(axes, records, "train_loss", "training")
    for name in names(records):
        if name.startswith("train_loss/"):
            plot(axes, records, name, f"training, {name.removeprefix('train_loss/')}", linestyle="--")
    plot(axes, records, "loss", "evaluation")
    plot(axes, records, "ema_loss", "evaluation, EMA")
    axes.set_title("loss")
    axes.legend(fontsize=LEGEND)


def draw_metrics(axes, records: list[Record]) -> None:
    """Draw the metrics of the evaluation, the primary one (larger is better) first and with its best epoch."""
    primary = records[-1].get("primary", "top1")
    metrics = [name for name in names(records) if name not in NO_METRICS and "/" not in name]
    metrics.sort(key=lambda name: name != primary)
    axes.set_title("metrics of the evaluation" if metrics else "no metrics")
    for name in metrics:
        plot(axes, records, name, label(name), linestyle="--" if name.startswith("ema_") else "-")
    if primary in metrics:
        evaluated = [record for record in records if is_number(record.get(primary))]
        best = max(evaluated, key=lambda record: (record[primary], -(record.get("loss") or 0.0)))  # as for best.ckpt
        digits = 2 if best[primary] > 1 else 3  # percents, or fractions
        text = f"best {label(primary)}: {best[primary]:.{digits}f} in epoch {best['epoch']}"
        axes.plot(best["epoch"], best[primary], "o", color="C0", label=text)
    if metrics:
        axes.legend(loc="lower right", fontsize=LEGEND)


def names(records: list[Record]) -> list[str]:
    """Return all keys with numbers, in the order of their first use."""
    return list(dict.fromkeys(name for record in records for name, value in record.items() if is_number(value)))


def is_number(value: object) -> bool:
    """Return whether a value of a record can be drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plot(axes, records: list[Record], name: str, text: str, **style: str) -> None:
    """Draw one key of the records over the epochs, unless no record has it."""
    points = [(record["epoch"], record[name]) for record in records if is_number(record.get(name))]
    if points:
        axes.plot(*zip(*points, strict=True), label=text, **style)


def label(name: str) -> str:
    """Return a metric's name for the legend."""
    prefix, base = ("EMA ", name.removeprefix("ema_")) if name.startswith("ema_") else ("", name)
    return prefix + LABELS.get(base, base)


if __name__ == "__main__":
    run_command_line(main)
