"""Plots are tested by what they draw, read back from the figure."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from uncertainty_core import (
    CalibrationMetric,
    CalibrationResult,
    ConfidenceCalibration,
    PixelRanking,
    UncertaintyRanking,
    bin_statistics,
    ranking,
    risk_coverage,
)
from uncertainty_core.plots import reliability_diagram, risk_coverage_plot, sparsification_plot


def result(confidence, success, num_bins=5, edges="right"):
    return CalibrationResult(bin_statistics(torch.tensor(confidence), torch.tensor(success), num_bins, edges), edges)


@pytest.fixture
def overconfident():
    # bin 4 (0.6, 0.8]: mean confidence 0.7, success 1/2; bin 5 (0.8, 1]: 0.9 and 1/2; the first three are empty
    return result([0.7, 0.7, 0.9, 0.9], [True, False, True, False])


@pytest.fixture
def perfect():
    return result([1.0, 1.0], [True, True])


def legend(figure):
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def png(figure, path):
    figure.savefig(path)
    return path.stat().st_size


def test_bars_show_success_gap_and_empty_bins(overconfident, tmp_path):
    figure = reliability_diagram(overconfident)
    upper, lower = figure.axes
    bars = [(p.get_x(), p.get_y(), p.get_height()) for p in upper.patches]
    # two bars of success 1/2 in the last two bins, then their gaps up to the mean confidence
    np.testing.assert_allclose(bars, [(0.6, 0, 0.5), (0.8, 0, 0.5), (0.6, 0.5, 0.2), (0.8, 0.5, 0.4)], atol=1e-6)
    (empty,) = [line for line in upper.lines if line.get_label() == "empty bin"]
    np.testing.assert_allclose(empty.get_xdata(), [0.1, 0.3, 0.5])
    (histogram,) = lower.patches
    np.testing.assert_allclose(histogram.get_data().values, [0, 0, 0, 0.5, 0.5])
    assert png(figure, tmp_path / "bars.png") > 5000


def test_no_bin_is_marked_empty_when_none_is():
    full = result([0.1, 0.3, 0.5, 0.7, 0.9], [True] * 5)
    assert "empty bin" not in legend(reliability_diagram(full))


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("name", ["a", "a student with a name of sixty characters, none fewer, {}"])
def test_no_name_covers_a_curve(overconfident, count, name):
    figure = reliability_diagram({name.format(k): overconfident for k in range(count)})
    figure.draw_without_rendering()
    (names,) = figure.legends
    box, whole = names.get_window_extent(), figure.bbox
    assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    heights = [axes.get_window_extent().height / figure.dpi for axes in figure.axes]
    assert heights[0] > 3 > heights[1] > 1  # inches: the figure grows, the diagram does not shrink


@pytest.mark.parametrize(
    ("metric", "expected"),
    # gaps 0.2 and 0.4 with weights 1/2: ECE 0.3, MSCE (0.04 + 0.16) / 2, MCE 0.4, squared 0.16
    [
        ("ece", "ECE = 0.3000"),
        ("msce", "MSCE \N{MULTIPLICATION SIGN} 100 = 10.0000"),
        ("mce", "MCE = 0.4000"),
        ("mce_squared", "MCE² (DDN) \N{MULTIPLICATION SIGN} 100 = 16.0000"),
    ],
)
def test_the_printed_metric_is_the_one_configured(overconfident, metric, expected):
    labels = legend(reliability_diagram(overconfident, metric))
    assert expected in labels
    assert sum("=" in label for label in labels) == 1


def test_several_models_overlay_as_lines(overconfident, perfect):
    figure = reliability_diagram({"baseline": overconfident, "student": perfect}, "mce", title="both")
    upper, lower = figure.axes
    assert legend(figure)[1:] == ["baseline: MCE = 0.4000", "student: MCE = 0.0000"]
    assert upper.get_title() == "both"
    lines = {line.get_label().split(":")[0]: line for line in upper.lines}
    np.testing.assert_allclose(lines["baseline"].get_xydata(), [(0.7, 0.5), (0.9, 0.5)], atol=1e-6)
    assert len(lower.patches) == 2
    colours = [line.get_color() for line in upper.lines[1:]]
    assert len(set(colours)) == 2


def test_nine_models_are_drawn(overconfident):
    figure = reliability_diagram({f"model {k}": overconfident for k in range(9)})
    assert len(figure.axes[0].lines) == 10


def test_a_result_of_nothing_is_drawn_empty():
    nothing = result([], np.zeros(0, dtype=bool))
    with pytest.warns(RuntimeWarning, match="ECE is NaN"):
        figure = reliability_diagram(nothing)
    assert "ECE = undefined" in legend(figure)


def test_bad_arguments_are_named(overconfident):
    with pytest.raises(ValueError, match="metric must be one of ece, msce, mce, mce_squared, got 'brier'"):
        reliability_diagram(overconfident, "brier")
    with pytest.raises(ValueError, match="results must hold"):
        reliability_diagram({})


def test_risk_coverage_draws_each_curve(tmp_path):
    errors = ranking(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([False, False, True, True]))
    figure = risk_coverage_plot({"a": risk_coverage(errors), "b": risk_coverage(errors)}, title="risk")
    (axes,) = figure.axes
    # risks of the first 1, 2, 3, 4: 0, 0, 1/3, 1/2, in percent
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0.25, 0), (0.5, 0), (0.75, 100 / 3), (1, 50)])
    assert legend(figure) == ["a", "b"]
    assert png(figure, tmp_path / "risk.png") > 5000


def test_sparsification_draws_models_and_dotted_oracles():
    removed = [0.0, 0.5]
    curve, oracle = torch.tensor([0.5, 0.7]), torch.tensor([0.5, 1.0])
    figure = sparsification_plot(removed, {"student": curve}, {"student": oracle})
    dotted, solid = figure.axes[0].lines
    assert (dotted.get_linestyle(), solid.get_linestyle()) == (":", "-")
    assert dotted.get_color() == solid.get_color()
    np.testing.assert_allclose(solid.get_ydata(), [50, 70])
    assert len(sparsification_plot(removed, {"student": curve}).axes[0].lines) == 1


def test_metrics_plot_themselves():
    probabilities, labels = torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([0, 0])
    calibration = CalibrationMetric(num_classes=2)
    calibration.update(probabilities, labels)
    grouped = ConfidenceCalibration(num_groups=2)
    grouped.update(torch.tensor([0.5, 0.9]), torch.tensor([True, False]), torch.tensor([0, 1]))
    errors = UncertaintyRanking()
    errors.update(torch.tensor([0.2, 0.6]), torch.tensor([False, True]))
    pixels = PixelRanking(num_classes=2, removed=[0.0, 0.5])
    pixels.update(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([0.2, 0.6]))
    for metric in (calibration, grouped, errors, pixels):
        assert metric.plot().axes
    assert "MSCE " in " ".join(legend(calibration.plot("msce")))


def test_nothing_is_registered_with_pyplot(overconfident):
    reliability_diagram(overconfident)
    assert plt.get_fignums() == []
