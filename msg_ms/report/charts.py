"""Charts of a report, drawn by matplotlib as SVG. Browsers draw the text, so names in any script are readable."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .content import Image, shown

BLUE, ORANGE, GREY = "#2f6fb2", "#d9822b", "#8c959f"
NAME = 24  # characters of a name in a chart
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "msg_ms",  # the same file each time
    "text.parse_math": False,  # a dollar sign in a name is no formula
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def chart(width: float, height: float, description: str, draw: Callable[[Any], None]) -> Image:
    """Return a chart.

    Args:
        width: In inches.
        height: In inches.
        description: The chart in words.
        draw: Draws into a matplotlib figure.
    """
    import matplotlib
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure = Figure((width, height), layout="constrained")
        draw(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return Image(stream.getvalue().encode("utf-8"), "image/svg+xml", (description,))


def name(text: str) -> str:
    """Return a name for a chart."""
    return shown(text, NAME)


def matrix_chart(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str], description: str) -> Image:
    """Draw a matrix of counts, each cell coloured by its share of its row; small matrices have the counts as text.

    Args:
        counts: int (R, C).
        rows: Names of the rows.
        columns: Names of the columns.
        description: The chart in words.
    """
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 0.34 if len(rows) > 12 else 0.5

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
        axes.set_xticks(range(len(columns)), [name(text) for text in columns], rotation=60, ha="right")
        axes.set_yticks(range(len(rows)), [name(text) for text in rows])
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            size = 8 if side > 0.4 else 6
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=color, fontsize=size)
        figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")

    return chart(3.5 + side * len(columns), 2.2 + side * len(rows), description, draw)


def bar_chart(names: Sequence[str], values: Sequence[float], axis: str, description: str) -> Image:
    """Draw horizontal bars, the first on top, with their values."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        bars = axes.barh([name(text) for text in names], values, color=BLUE)
        axes.bar_label(bars, fmt="{:.3f}", padding=3)
        axes.invert_yaxis()
        axes.set_xlabel(axis)
        axes.margins(x=0.12)

    return chart(7, 0.9 + 0.3 * len(names), description, draw)


def curve_chart(
    panels: Mapping[str, Mapping[str, np.ndarray]], x: np.ndarray, axes: Sequence[str], description: str
) -> Image:
    """Draw curves over [0, 1] in panels side by side.

    Args:
        panels: For each title of a panel the values of its curves, (N,), by name.
        x: Their common positions, (N,).
        axes: Names of the axes x and y.
        description: The chart in words.
    """

    def draw(figure: Any) -> None:
        for place, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for text, values in curves.items():
                place.plot(x, values, label=shown(text, 2 * NAME), linewidth=1.5)
            place.set(title=title, xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, 1.02))
            place.grid(alpha=0.3)
            if curves:
                place.legend(loc="lower left", fontsize=7)

    return chart(5.2 * len(panels), 4, description, draw)


def reliability_chart(edges: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray) -> Image:
    """Draw a reliability diagram above a histogram of the confidences.

    Args:
        edges: Of the B bins, (B + 1,).
        confidence: Mean confidence of each bin, (B,); NaN for an empty one.
        accuracy: Share of right predictions in each bin, (B,); NaN for an empty one.
        counts: Predictions in each bin, (B,).
    """
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.bar(middle, np.nan_to_num(accuracy), width, color=BLUE, edgecolor="white", label="accuracy")
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfect calibration")
        above.plot(confidence, accuracy, "o", color=ORANGE, markersize=4, label="mean confidence")
        above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        above.legend(loc="upper left", fontsize=8)
        below.bar(middle, counts, width, color=GREY, edgecolor="white")
        below.set(xlabel="confidence (probability of the predicted class)", ylabel="images")

    text = "Reliability diagram: accuracy of the predictions by their confidence, and the number of images in each bin"
    return chart(6, 5, text, draw)
