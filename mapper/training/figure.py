"""The figure of an evaluation: confusion matrix, scores of classes, reliability diagram."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mapper.training.evaluate import Evaluation
from mapper.training.scores import Calibration

_LONGEST = 24
"""Characters of a class title."""
_CELL = 0.46
"""Inches a class, in the matrix and among the bars."""
_INK, _GREY, _AFTER = "#222222", "#8A8A8A", "#C0392B"


def draw(evaluation: Evaluation) -> Figure:
    """A figure for people; made without pyplot, so nothing is kept and no display is needed."""
    count = len(evaluation.classes.classes)
    side = max(4.2, _CELL * count)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(side + 7.2, max(7.4, side + 2.4)), layout=layout)
    grid = figure.add_gridspec(
        2, 2, width_ratios=[side + 1.6, 4.6], height_ratios=[max(3.0, 0.38 * count), 3.4]
    )
    _draw_matrix(figure.add_subplot(grid[:, 0]), evaluation)
    _draw_classes(figure.add_subplot(grid[0, 1]), evaluation)
    _draw_reliability(figure.add_subplot(grid[1, 1]), evaluation)
    figure.suptitle(_title(evaluation), fontsize=11, color=_INK)
    return figure


def _title(evaluation: Evaluation) -> str:
    scores = evaluation.scores
    figures = [
        f"{name} {value:.3f}"
        for name, value in (
            ("overall accuracy", scores.accuracy),
            ("kappa", scores.kappa),
            ("mean IoU", scores.mean_iou),
            ("mean F1", scores.mean_f1),
        )
        if value is not None
    ]
    images = "1 image" if evaluation.images == 1 else f"{evaluation.images} images"
    what = f"{evaluation.model} on {evaluation.data['name']}: {images}, "
    return _plain(what + f"{compact(evaluation.pixels)} pixels\n") + ", ".join(figures)


def _draw_matrix(axes: Any, evaluation: Evaluation) -> None:
    """Shares of each reference class, with counts."""
    counts = np.array(evaluation.scores.matrix, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    titles = _titles(evaluation)
    places = range(len(titles))
    labels = [
        f"{title} ({compact(int(total))})"
        for title, total in zip(titles, totals[:, 0], strict=True)
    ]
    axes.set_yticks(places, labels, fontsize=9)
    axes.set_xticks(places, titles, fontsize=9, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlabel("Map")
    axes.set_ylabel("Reference (pixels)")
    axes.set_title("Share of each reference class in %, and pixels", fontsize=10)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(titles) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(titles) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#DDDDDD", linewidth=0.6)
    axes.tick_params(which="minor", length=0)
    large = len(titles) <= 8
    for row, col in np.argwhere(counts > 0):
        share = shares[row, col]
        percent = f"{share * 100:.1f}" if large else f"{share * 100:.0f}"
        text = f"{percent}\n{compact(int(counts[row, col]))}"
        ink = "white" if share > 0.55 else _INK
        size = 9 if large else 7
        cell = axes.text(col, row, text, ha="center", va="center", fontsize=size, color=ink)
        # it lies inside the axes: measuring hundreds of them takes longer than drawing
        cell.set_in_layout(False)


def _draw_classes(axes: Any, evaluation: Evaluation) -> None:
    """IoU and F1 of each class in its colour."""
    titles = _titles(evaluation)
    size = 9 if len(titles) <= 12 else 7
    for place, (entry, found) in enumerate(
        zip(evaluation.classes.classes, evaluation.scores.classes, strict=True)
    ):
        colour = f"#{entry.color}"
        for shift, value, alpha in ((-0.2, found.iou, 1.0), (0.2, found.f1, 0.45)):
            if value is None:
                axes.text(0.01, place + shift, "-", va="center", fontsize=size, color=_GREY)
                continue
            axes.barh(place + shift, value, 0.38, color=colour, alpha=alpha)
            # an outline of its own, since classes may be white
            axes.barh(place + shift, value, 0.38, fill=False, edgecolor=_GREY, linewidth=0.5)
            axes.text(value + 0.01, place + shift, f"{value:.2f}", va="center", fontsize=size - 2)
    axes.set_yticks(range(len(titles)), titles, fontsize=size)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_xlim(0, 1.1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("IoU (full colour) and F1 (pale) of each class", fontsize=10)


def _draw_reliability(axes: Any, evaluation: Evaluation) -> None:
    """Accuracy over confidence, before and after temperature scaling."""
    axes.plot([0, 1], [0, 1], linestyle="--", color=_GREY, linewidth=1)
    _draw_shares(axes, evaluation.before)
    fit = evaluation.fit
    what = "as it is" if fit is None else "before"
    _draw_curve(axes, evaluation.before, what, _INK)
    if fit is not None and evaluation.after is not None:
        _draw_curve(axes, evaluation.after, f"temperature {fit.temperature:.3g}", _AFTER)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("Confidence")
    axes.set_ylabel("Accuracy; share of pixels (bars)")
    axes.set_title("Reliability", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", fontsize=8, frameon=False)


def _draw_shares(axes: Any, calibration: Calibration) -> None:
    bins = calibration.table()
    heights = [b.pixels / max(1, calibration.pixels) for b in bins]
    edges = [b.low for b in bins]
    axes.bar(edges, heights, width=1 / len(bins), align="edge", color="#E3E3E3")


def _draw_curve(axes: Any, calibration: Calibration, what: str, colour: str) -> None:
    known = [b for b in calibration.table() if b.pixels]
    error = calibration.error
    label = what if error is None else f"{what}: ECE {error:.3f}"
    axes.plot(
        [b.confidence for b in known],
        [b.accuracy for b in known],
        marker="o",
        markersize=4,
        color=colour,
        label=label,
    )


def _titles(evaluation: Evaluation) -> list[str]:
    found = [c.title for c in evaluation.classes.classes]
    return [_plain(t if len(t) <= _LONGEST else t[: _LONGEST - 1] + "…") for t in found]


def _plain(text: str) -> str:
    """Dollar signs would be taken for formulas."""
    return text.replace("$", r"\$")


def compact(count: int) -> str:
    """A count in at most five characters: 950, 1.2k, 34k, 5.6M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # what rounds up to 1000 of a unit is 1 of the next
        if count >= limit * 0.9995:
            value = count / limit
            return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"
    return str(count)
