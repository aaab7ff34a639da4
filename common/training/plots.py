"""Plots of runs, as the bytes of PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from common.training.history import Epoch


POINTS = 300  # at most, in a curve; longer runs are averaged in blocks
SHOWN = 32  # at most, images in a plot of predictions
MARKERS = "os^Dv*PX"
NAMED = 100  # at most, classes with a name at the axes of a confusion matrix
FONT = "DejaVu Sans"  # matplotlib brings it along
#: fonts with Chinese, Japanese and Korean characters, in the order of preference
MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "Heiti TC", "SimHei"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans CJK JP", "Noto Sans CJK TC"),
    *("Droid Sans Fallback", "AR PL UMing CN", "Arial Unicode MS", "Unifont"),
)


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw names as they are: no formulas, no LaTeX, whatever the user's settings; no warnings."""
    import matplotlib

    settings = {
        "text.parse_math": False,
        "text.usetex": False,
        "axes.formatter.use_mathtext": False,
        "font.family": list(_fonts()),
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _fonts() -> dict[str, str]:
    """Return the name and file of the fonts to use: ours, and one of MORE_FONTS if it is there."""
    from matplotlib.font_manager import findfont, fontManager

    installed = {each.name: each.fname for each in fontManager.ttflist}
    more = [name for name in MORE_FONTS if name in installed][:1]
    return {FONT: findfont(FONT)} | {name: installed[name] for name in more}


@cache
def _known(path: str) -> frozenset[int]:
    """Return the characters of a font."""
    from matplotlib.font_manager import get_font

    return frozenset(get_font(path).get_charmap())


def _name(text: str, longest: int = 24) -> str:
    """Shorten a name. What no font can draw becomes an escape such as `\\u732b`."""
    short = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(
        each
        if any(ord(each) in _known(path) for path in _fonts().values())
        else each.encode("unicode_escape").decode()
        for each in printable(short)
    )


@_drawing()
def curve(epochs: Sequence[Epoch], title: str) -> bytes:
    """Plot loss and accuracy, training and test, for each epoch."""
    figure, (left, right) = _two_panels(_name(title, 80))
    numbers = [epoch.number for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], "o-", label="train")
    left.plot(numbers, [epoch.test_loss for epoch in epochs], "s--", label="test")
    right.plot(numbers, [epoch.train_accuracy for epoch in epochs], "o-", label="train")
    right.plot(numbers, [epoch.test_accuracy for epoch in epochs], "s--", label="test")
    left.legend()
    right.legend()
    return _png(figure)


@_drawing()
def overlay(histories: Mapping[str, Sequence[Epoch]]) -> bytes:
    """Plot the training loss and test accuracy of several runs in the same axes.

    A point of the loss is one step, or the mean of a few steps in long runs. The first run has the
    widest line and the last run is on top, so that equal curves all stay visible.
    """
    figure, (left, right) = _two_panels("")
    longest = max(sum(len(epoch.losses) for epoch in epochs) for epochs in histories.values())
    block = -(-longest // POINTS)
    for index, (name, epochs) in enumerate(histories.items()):
        width = 1.0 + 2.4 * (1 - (index + 1) / len(histories))
        shown = _name(name, 80)
        colour, marker = f"C{index % 10}", MARKERS[index % len(MARKERS)]
        at = np.concatenate(
            [
                each.number - 1 + np.arange(1, len(each.losses) + 1) / len(each.losses)
                for each in epochs
            ]
        )
        losses = np.concatenate([each.losses for each in epochs])
        starts = np.arange(0, len(losses), block)
        counts = np.diff([*starts, len(losses)])
        left.plot(
            np.add.reduceat(at, starts) / counts,
            np.add.reduceat(losses, starts) / counts,
            color=colour,
            linewidth=width,
            marker=marker,
            markersize=4 + width,
            markevery=(index * 5, max(10, len(starts) // 8)),
            label=f" {shown}" if shown.startswith("_") else shown,  # "_" hides it from the legend
        )
        right.plot(
            [epoch.number for epoch in epochs],
            [epoch.test_accuracy for epoch in epochs],
            color=colour,
            linewidth=width,
            marker=marker,
            markersize=4 + width,
        )
    left.set_ylabel(
        "training loss" + (f", mean of {block} steps" if block > 1 else " of each step")
    )
    right.set_ylabel("test accuracy")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _png(figure)


@_drawing()
def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Plot the confusion matrix: rows are true classes, columns are predicted classes."""
    from matplotlib.figure import Figure

    table = np.array(counts)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(16.0, 3.0 + 0.5 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the class", shrink=0.7)
    if len(classes) <= 25:
        for (row, column), count in np.ndenumerate(table):
            colour = "white" if shares[row, column] > 0.5 else "black" if count else "lightgrey"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    every = -(-len(classes) // NAMED)  # more names than NAMED overlap, and take very long
    places, names = range(0, len(classes), every), [_name(each) for each in classes[::every]]
    small = min(9.0, 0.5 * 72 * side / len(names))  # points: half of the space of a name
    axes.set_xticks(places, names, rotation=90, fontsize=small)
    axes.set_yticks(places, names, fontsize=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    accuracy = table.trace() / max(table.sum(), 1)
    axes.set_title(f"{table.sum()} test images, {accuracy:.1%} correct")
    return _png(figure)


@_drawing()
def predictions(images: np.ndarray, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot the network's input images, uint8 (N, C, H, W), above their most likely classes."""
    from matplotlib.figure import Figure

    shown = min(len(rows), SHOWN)
    columns = min(shown, 4)
    lines = -(-shown // columns)
    likely = len(rows[0]["classes"])
    figure = Figure(
        figsize=(2.6 * columns, (2.3 + 0.26 * likely) * lines + 0.3), layout="constrained"
    )
    if shown < len(rows):
        figure.suptitle(f"the first {shown} of {len(rows)} images")
    cells = figure.subplots(
        2 * lines, columns, squeeze=False, height_ratios=[2.0, 0.26 * likely + 0.1] * lines
    )
    for axes in cells.flat:
        axes.set_axis_off()
    for index, (image, row) in enumerate(zip(images[:shown], rows, strict=False)):
        above, below = cells[2 * (index // columns) : 2 * (index // columns) + 2, index % columns]
        above.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255)
        above.set_title(_name(Path(row["file"]).name), fontsize=9)
        chances = [each["probability"] for each in row["classes"]]
        below.barh(range(len(chances)), chances, color="lightsteelblue")
        for at, each in enumerate(row["classes"]):
            text = f"{_name(each['class'])}  {each['probability']:.1%}"
            below.text(0.02, at, text, va="center", fontsize=8)
        below.set_xlim(0, 1)
        below.set_ylim(likely - 0.5, -0.5)
    return _png(figure)


def _two_panels(title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return a figure with a panel for the loss and one for the accuracy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, label in ((left, "loss"), (right, "accuracy")):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    return figure, (left, right)


def _png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
