"""A calibrator for one segmentor, and what it does to images that it was not fitted to.

Shapes: n pixels, C classes.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config
from torch import Tensor

from uncertainty_core import CalibrationMetric
from uncertainty_core.catalog import metric
from uncertainty_core.recalibration import PROBABILITY_METHODS, Calibrator, fit_named
from uncertainty_core.report.markdown import markdown_table
from uncertainty_core.sampling.pixels import PixelSample

from ..cli import ConfigError
from ..metrics.calibration import SCORES
from ..metrics.pixels import of_all
from ..models.consensus import both_classes
from .calibrators import check_calibrators, sampling
from .evaluation import run_test

MEASURED = ("aAcc", "ece", *SCORES)


class Fitted(NamedTuple):
    """calibrator: fitted to all images; pixels: how many of them.
    table: what that of one half of the images does to the other.
    """

    calibrator: Calibrator
    pixels: int
    table: str


def fit_held_out(
    cfg: Config, checkpoint: str | None, split: str, size: int, method: str, of_uncertainty: str | None = None
) -> list[Fitted]:
    """Calibrate a segmentor; into the work dir of `cfg` go the logs alone.

    Args:
        cfg: of a segmentor or a teacher.
        checkpoint: its weights; a teacher has its own.
        split: "val" or "train", whose images are taken.
        size: pixels of the sample.
        method: of CLASS_METHODS.
        of_uncertainty: of METHODS, for a second calibrator from the uncertainty to the probability of an error.
    """
    check_calibrators([cfg], split)
    [drawn] = run_test(sampling(cfg, split, Path(cfg.work_dir), size), checkpoint).evaluators
    if not all(map(len, drawn.classes)):
        raise ConfigError(f"one half of the {split} images has no pixel with a label: take more images")
    fits = [
        _fitted(
            drawn.classes,
            PROBABILITY_METHODS[method],
            lambda calibrator, probabilities: calibrator(probabilities),
            method,
        )
    ]
    if of_uncertainty is not None:
        if not len(drawn.errors[0]):
            raise ConfigError(f"--uncertainty: model.type is {cfg.model.type}, which gives no uncertainty")
        fit = fit_named(of_uncertainty)
        fits.append(
            _fitted(
                drawn.errors,
                lambda pairs, wrong: fit(pairs[:, 1], wrong.double()),
                lambda calibrator, pairs: both_classes(calibrator(pairs[:, 1:])),
                f"{of_uncertainty} of the uncertainty, right or wrong",
            )
        )
    return fits


def _fitted(
    halves: tuple[PixelSample, PixelSample],
    fit: Callable[[Tensor, Tensor], Calibrator],
    apply: Callable[[Calibrator, Tensor], Tensor],
    title: str,
) -> Fitted:
    first, second = halves
    after = apply(fit(first.probabilities, first.labels), second.probabilities)
    rows = [
        [when, *(metric(name).text(values[name]) for name in MEASURED)]
        for when, values in (
            ("before", _measured(second.probabilities, second.labels)),
            ("after", _measured(after, second.labels)),
        )
    ]
    head = f"{title}: fitted to one half of the images, on {len(second):,} pixels of the other"
    table = markdown_table(["", *(metric(name).head for name in MEASURED)], rows)
    whole = of_all(halves)
    return Fitted(fit(whole.probabilities, whole.labels), len(whole), f"{head}\n{table}")


def _measured(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """MEASURED by name, of probabilities (n, C) and labels (n,)."""
    calibration = CalibrationMetric(probabilities.shape[1], scores=SCORES, sync_on_compute=False)
    calibration.update(probabilities, labels)
    values = {name: value.item() for name, value in calibration.compute().items()}
    return values | {"aAcc": 100 * (probabilities.argmax(1) == labels).double().mean().item()}
