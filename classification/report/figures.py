"""The drawings of a report that `uncertainty_core.plots` has not: over epochs, strengths and sizes.

Each overlays lines by name, with the legend below.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uncertainty_core.colours import COLOURS, REFERENCE
from uncertainty_core.plots import MARKERS, line_styles, tidy
from uncertainty_core.roles import Look

from .read import Curves

# share of retained parameters, mean error, its deviation or None
Point = tuple[float, float, float | None]


def _panels(height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5, height), layout="constrained")
    panels = list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        tidy(axes)
    return figure, panels


def _percent(values: Sequence[float]) -> list[float]:
    return [100 * value for value in values]


def _legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)


def training_figure(accuracies: Mapping[str, Sequence[Curves]], looks: Mapping[str, Look]) -> Figure:
    """Accuracy after each epoch (DDN fig. 1), for each seed of a network: a line in test, a dashed one in training.

    Args:
        accuracies: of each network, for each seed.
        looks: of the networks.
    """
    figure, (axes,) = _panels(4.5)
    for name, seeds in accuracies.items():
        for k, curves in enumerate(seeds):
            epochs = range(1, len(curves["test"]) + 1)
            few = len(epochs) <= 15  # for more a line is enough
            style = {"color": looks[name].colour, "marker": "o" if few else None, "markersize": 3}
            axes.plot(epochs, _percent(curves["train"]), linestyle="--", linewidth=0.9, **style)
            axes.plot(epochs, _percent(curves["test"]), linewidth=1.4, label=name if k == 0 else None, **style)
    axes.set(xlabel="epoch", ylabel="accuracy, %")
    _legend(figure, axes)
    return figure


def corruption_figure(accuracy: Mapping[str, Sequence[float]], ece: Mapping[str, Sequence[float]]) -> Figure:
    """Accuracy and ECE of each predictor at strengths 0 (the test images as they are), 1, 2, ..."""
    figure, panels = _panels(5, rows=2)
    percent = {name: _percent(values) for name, values in accuracy.items()}
    for axes, lines in zip(panels, (percent, ece), strict=True):
        for (name, values), line in zip(lines.items(), line_styles(lines), strict=True):
            axes.plot(range(len(values)), values, linewidth=1.4, label=name, **line)
    panels[0].set(ylabel="accuracy, %")
    panels[1].set(ylabel="ECE", xlabel="strength")
    _legend(figure, panels[0])
    return figure


def compression_figure(curves: Mapping[str, Sequence[Point]], references: Mapping[str, float]) -> Figure:
    """Test error against the share of retained parameters (Rota Bulò fig. 3).

    Args:
        curves: points by method, in rising order.
        references: errors of the full-size network, as horizontal lines by name.
    """
    figure, (axes,) = _panels(4.8)
    for (name, points), colour, marker in zip(curves.items(), COLOURS, MARKERS, strict=False):
        shares, errors, deviations = zip(*points, strict=True)
        axes.errorbar(
            [100 * share for share in shares],
            [100 * error for error in errors],
            yerr=[100 * (deviation or 0) for deviation in deviations],
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.4,
            capsize=2,
            label=name,
        )
    for (name, error), style in zip(references.items(), ("--", ":"), strict=False):
        axes.axhline(100 * error, color=REFERENCE, linestyle=style, linewidth=1, label=name)
    axes.set(xlabel="retained parameters, %", ylabel="test error, %")
    _legend(figure, axes, columns=1)  # methods have long names
    return figure
