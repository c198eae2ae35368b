"""Draw architecture.svg and architecture.png beside this file: python docs/assets/make_architecture.py."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

HERE = Path(__file__).parent
X = "\N{MULTIPLICATION SIGN}"
INK, GREY, PATCH, MSG, REGION = "#24292f", "#57606a", "#d6e4f5", "#e8710a", "#1a5fb4"
WINDOW_COLORS = ["#e8710a", "#1a9850", "#7b52ab", "#d6336c"]
# msg_tiny at 224 x 224: title, windows per side, regions per side, tokens per side, channels, blocks.
STAGES = [
    ("Stage 1", 8, 2, 56, 64, 2),
    ("Stage 2", 4, 1, 28, 128, 4),
    ("Stage 3", 2, 1, 14, 256, 12),
    ("Stage 4", 1, 1, 7, 512, 4),
]


def box(ax, x, y, width, height, text, color="#f6f8fa"):
    """Draw a rounded box with a centered label; (x, y) is its lower left corner."""
    style = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", fc=color, ec=GREY, lw=1)
    ax.add_patch(style)
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=9, color=INK)


def arrow(ax, begin, end, color=GREY, style="-|>"):
    """Draw an arrow, or with style "-" a line."""
    ax.add_patch(
        FancyArrowPatch(begin, end, arrowstyle=style, mutation_scale=9, color=color, lw=1.1, shrinkA=0, shrinkB=0)
    )


def label(ax, x, y, text, size=9, color=INK, **options):
    """Write text centered at (x, y)."""
    ax.text(x, y, text, ha="center", va="center", fontsize=size, color=color, **options)


def windows(ax, x, y, side, count, regions):
    """Draw count x count windows, each with its MSG token, inside regions x regions shuffle regions."""
    cell = side / count
    for row in range(count):
        for column in range(count):
            left, low = x + column * cell, y + row * cell
            ax.add_patch(Rectangle((left, low), cell, cell, fc=PATCH, ec="white", lw=1))
            ax.plot(left + cell / 2, low + cell / 2, "o", ms=3.6, color=MSG, mew=0)
    part = side / regions
    for row in range(regions):
        for column in range(regions):
            ax.add_patch(Rectangle((x + column * part, y + row * part), part, part, fc="none", ec=REGION, lw=1.6))


def draw_hierarchy(ax):
    """Draw the four stages of msg_tiny, from the image to the classes."""
    middle, x = 4.95, 1.9
    box(ax, -0.1, middle - 0.55, 1.55, 1.1, f"image\n224 {X} 224 {X} 3\n7 {X} 7 conv,\nstride 4")
    for i, (title, count, regions, tokens, channels, blocks) in enumerate(STAGES):
        arrow(ax, (x - 0.45 if i == 0 else x - 1.15, middle), (x - 0.08, middle))
        if i:
            label(ax, x - 0.62, middle + 0.27, f"3 {X} 3 conv,\nstride 2", 7.5, GREY)
        side = (1.9, 1.45, 1.05, 0.75)[i]
        windows(ax, x, middle - side / 2, side, count, regions)
        label(ax, x + side / 2, middle + 1.38, f"{title}: {blocks} blocks", 9.5, weight="bold")
        label(ax, x + side / 2, middle + 1.14, f"{tokens} {X} {tokens} tokens, C = {channels}", 8, GREY)
        x += side + 1.25
    arrow(ax, (x - 1.17, middle), (x - 0.8, middle))
    box(ax, x - 0.72, middle - 0.4, 1.1, 0.8, "MSG token\n→ classes")


def draw_block(ax):
    """Draw the three steps of a block for a region of four windows."""
    label(ax, 6.28, 3.45, "Inside each block", 10.5, weight="bold")
    # Four windows of one shuffle region.
    for i, color in enumerate(WINDOW_COLORS):
        left, low = 0.35 + (i % 2) * 1.15, 1.55 - (i // 2) * 1.15
        for row in range(3):
            for column in range(3):
                cell = (left + column * 0.34, low + row * 0.34)
                ax.add_patch(Rectangle(cell, 0.3, 0.3, fc=PATCH, ec="none"))
                center = (cell[0] + 0.15, cell[1] + 0.15)
                ax.plot([left + 0.49, center[0]], [low + 0.49, center[1]], color=color, lw=0.7, alpha=0.8)
        ax.plot(left + 0.49, low + 0.49, "o", ms=9, color=color, mec="white", mew=0.8)
    ax.add_patch(Rectangle((0.25, 0.32), 2.33, 2.33, fc="none", ec=REGION, lw=1.6))
    label(ax, 1.42, 2.93, "1. Attention in each window,\nMSG token included", 9)
    arrow(ax, (2.95, 1.5), (3.85, 1.5))
    # The MSG tokens' channels, before and after the shuffle.
    for token in range(4):
        for group in range(4):
            for left, color in ((4.25, WINDOW_COLORS[token]), (6.85, WINDOW_COLORS[group])):
                place = (left + group * 0.37, 2.1 - token * 0.45)
                ax.add_patch(Rectangle(place, 0.34, 0.3, fc=color, ec="white", lw=0.8))
        for source in range(4):
            arrow(ax, (5.82, 2.25 - source * 0.45), (6.75, 2.25 - token * 0.45), "#b8c0c8", "-")
    label(ax, 4.98, 0.45, "channels of 4 MSG tokens", 8, GREY)
    label(ax, 7.58, 0.45, "after the shuffle", 8, GREY)
    label(ax, 6.28, 2.93, "2. Shuffle: the MSG tokens of a region\nexchange groups of channels", 9)
    arrow(ax, (8.7, 1.5), (9.6, 1.5))
    box(ax, 10.1, 1.05, 1.5, 0.9, "LayerNorm\nMLP")
    label(ax, 10.85, 2.93, "3. MLP\non all tokens", 9)


def draw_legend(ax):
    """Draw the meaning of the colors below the figure."""
    for x, text in ((0.5, "window"), (2.1, "MSG token of a window"), (5.3, "shuffle region")):
        y = -0.05
        if text == "window":
            ax.add_patch(Rectangle((x - 0.3, y - 0.1), 0.2, 0.2, fc=PATCH, ec="none"))
        elif text == "shuffle region":
            ax.add_patch(Rectangle((x - 0.3, y - 0.1), 0.2, 0.2, fc="none", ec=REGION, lw=1.6))
        else:
            ax.plot(x - 0.2, y, "o", ms=5, color=MSG, mew=0)
        ax.text(x, y, text, ha="left", va="center", fontsize=8.5, color=GREY)
    ax.text(7.9, -0.05, "Attention and MLP have residual connections.", va="center", fontsize=8.5, color=GREY)


def main():
    """Write both files."""
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "svg.hashsalt": "msg_ms"})
    figure, ax = plt.subplots(figsize=(12.7, 6.6))
    ax.set(xlim=(-0.2, 12.5), ylim=(-0.3, 6.5), aspect="equal")
    ax.axis("off")
    draw_hierarchy(ax)
    draw_block(ax)
    draw_legend(ax)
    for suffix, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 110})):
        figure.savefig(HERE / f"architecture.{suffix}", bbox_inches="tight", facecolor="white", **options)


if __name__ == "__main__":
    main()
