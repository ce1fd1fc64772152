"""Pictures of the metrics. Each function returns a matplotlib Figure and shows nothing; save it with `savefig`.

One or several models: pass a result, or a dict of them by name to overlay them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .catalog import CURVES, METRICS, CurveKind
from .colours import COLOURS, EMPTY, GRID, REFERENCE
from .functional.calibration import BIN_METRICS, CalibrationResult, bin_edges
from .roles import looks

MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":", "-.")
_LINE = 0.2  # inches that a line of a legend takes
_HALF_WIDTH = 28  # characters that fit twice beside each other


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def tidy(axes: Axes) -> None:
    """No frame at the top and on the right, a faint grid behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _label(name: str, result: CalibrationResult, metric: str) -> str:
    declared = METRICS[metric]
    value = f"{declared.head} = {declared.text(BIN_METRICS[metric](result.bins).item())}"
    return f"{name}: {value}" if name else value


def reliability_diagram(
    results: CalibrationResult | Mapping[str, CalibrationResult], metric: str = "ece", title: str = ""
) -> Figure:
    """Success frequency against confidence, above a histogram of the confidences.

    One result is drawn as bars with the gap to the diagonal and its empty bins marked as empty; several as lines.

    Args:
        results: a result, or results by name.
        metric: which one to print, one of `BIN_METRICS`.
        title: above the diagram.
    """
    if metric not in BIN_METRICS:
        raise ValueError(f"metric must be one of {', '.join(BIN_METRICS)}, got {metric!r}")
    if isinstance(results, CalibrationResult):
        results = {"": results}
    if not results:
        raise ValueError("results must hold at least one result")
    figure = _figure(5, 6)
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot((0, 1), (0, 1), color=REFERENCE, linestyle="--", linewidth=1, label="perfect calibration")
    if len(results) == 1:
        ((name, result),) = results.items()
        _draw_bars(upper, result, _label(name, result, metric))
    else:
        for (name, result), line in zip(results.items(), line_styles(results), strict=True):
            held = result.bins.count > 0
            success = result.bins.success_frequency[held]
            upper.plot(result.bins.mean_confidence[held], success, label=_label(name, result, metric), **line)
    for result, line in zip(results.values(), line_styles(results), strict=True):
        share, colour = result.bins.count.double() / max(1, result.num_samples), line["color"]
        if len(results) == 1:
            colour = COLOURS[0]
        lower.stairs(share, bin_edges(result.num_bins), color=colour, linewidth=1.5, fill=len(results) == 1)

    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="success frequency", title=title)
    _legend_below(figure, upper)
    lower.set(xlabel="confidence", ylabel="share of samples", ylim=(0, None))
    tidy(upper)
    tidy(lower)
    return figure


def _legend_below(figure: Figure, axes: Axes) -> None:
    """Name the lines of `axes` at the foot of the figure, which grows for it: there no name ever covers a line."""
    handles, names = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, names), default=0) <= _HALF_WIDTH else 1
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _LINE * math.ceil(len(names) / columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def line_styles(names: Iterable[str], marked: bool = True) -> list[dict[str, Any]]:
    """What matplotlib draws the rows of these names with, as `roles` has it; marks are left out on demand."""
    return [
        {"color": look.colour, "linestyle": DASHES[look.dashes % len(DASHES)]}
        | ({"marker": MARKERS[look.mark % len(MARKERS)], "markersize": 4} if marked else {})
        for look in looks(names).values()
    ]


def _draw_bars(axes: Axes, result: CalibrationResult, label: str) -> None:
    edges = bin_edges(result.num_bins).numpy()
    width = 1 / result.num_bins
    held = (result.bins.count > 0).numpy()
    success, confidence = result.bins.success_frequency.numpy(), result.bins.mean_confidence.numpy()
    bars = {"width": width, "align": "edge", "linewidth": 0.8}
    axes.bar(edges[:-1][held], success[held], color=COLOURS[0], edgecolor="white", label=label, **bars)
    axes.bar(
        edges[:-1][held],
        (confidence - success)[held],
        bottom=success[held],
        facecolor="none",
        edgecolor=COLOURS[1],
        hatch="////",
        label="gap to the mean confidence",
        **bars,
    )
    if not held.all():
        centres = (edges[:-1] + edges[1:])[~held] / 2
        axes.plot(centres, np.full_like(centres, 0.02), "x", color=EMPTY, markersize=5, label="empty bin")


def _curves(axes: Axes, kind: CurveKind, curves: Mapping[str, tuple[Sequence[float], Tensor]]) -> None:
    for (name, (x, y)), line in zip(curves.items(), line_styles(curves, marked=False), strict=True):
        axes.plot(x, kind.factor * y, label=name, linewidth=1.6, **line)
    tidy(axes)


def risk_coverage_plot(curves: Mapping[str, tuple[Tensor, Tensor]], title: str = "") -> Figure:
    """Error rate among the most certain share of the samples (DDN fig. 3).

    Args:
        curves: (coverage, risk) of each model by name, as `selective.risk_coverage` returns them.
        title: above the diagram.
    """
    figure = _figure(5, 4)
    axes = figure.subplots()
    kind = CURVES["risk_coverage"]
    _curves(axes, kind, {name: (x.cpu(), y.cpu()) for name, (x, y) in curves.items()})
    axes.set(xlim=(0, 1), ylim=(0, None), xlabel=kind.x, ylabel=kind.y, title=title)
    _legend_below(figure, axes)
    return figure


def sparsification_plot(
    removed: Sequence[float],
    curves: Mapping[str, Tensor],
    oracles: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> Figure:
    """mIoU of the pixels that are left against the removed share of the most uncertain ones (DUDES fig. 4).

    Args:
        removed: the Q shares.
        curves: mIoU (Q,) of each model by name.
        oracles: the best possible curves (Q,) by the same names; drawn dotted.
        title: above the diagram.
    """
    figure = _figure(5, 4)
    axes = figure.subplots()
    oracles = oracles or {}
    kind = CURVES["sparsification"]
    for name, look in looks(curves).items():
        if name in oracles:
            oracle = kind.factor * oracles[name].cpu()
            axes.plot(removed, oracle, color=look.colour, linestyle=":", linewidth=1, label=f"{name}, oracle")
    _curves(axes, kind, {name: (removed, curve.cpu()) for name, curve in curves.items()})
    axes.set(xlabel=kind.x, ylabel=kind.y, title=title)
    _legend_below(figure, axes)
    return figure
