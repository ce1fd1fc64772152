"""How each metric and curve is called, defined, printed and read: declared here, and nowhere else.

Tables, pages, pictures and docs/metrics.md read these declarations. What is not declared is printed plain, by its own
name. In formulas n, conf and freq are a bin's count, mean confidence and share of successes, N is the number of all
samples, t an IoU threshold, and a hit a detection that finds an object of its class with an IoU of at least t.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

TASKS = CLASSIFICATION, DETECTION, SEGMENTATION = "classification", "detection", "segmentation"

FORMAT = 2  # of every JSON record of metrics; in 1, `mce` was squared

PERCENT = "%"
HUNDREDTHS = "\N{MULTIPLICATION SIGN} 100"  # as DDN's tables print squared errors


@dataclass(frozen=True)
class Metric:
    """A metric as people read it.

    Args:
        key: its name in code and records.
        label: its name for people.
        definition: one line; "" for what has none.
        better: None for a metric that is neither good nor bad.
        unit: of what is printed.
        digits: after the point.
        factor: from the recorded value to the printed one.
        formula: its definition in signs, where words leave room.
        brief: tasks whose short tables, those of the terminal, have it; long ones have all.
        group: a heading over several columns.
        signed: whether it may be negative.
    """

    key: str
    label: str
    definition: str = ""
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    digits: int = 4
    factor: float = 1.0
    formula: str = ""
    brief: tuple[str, ...] = ()
    group: str = ""
    signed: bool = False

    @property
    def head(self) -> str:
        """Label and unit, for a column of plain text."""
        return f"{self.label} {self.unit}".rstrip()

    def text(self, value: float) -> str:
        """The recorded value as it is printed."""
        if not math.isfinite(value):
            return "undefined" if math.isnan(value) else "∞" if value > 0 else "-∞"
        return f"{self.factor * value:,.{self.digits}f}"


def _share(key: str, label: str, definition: str, better: str | None, **more) -> Metric:
    """Recorded as a fraction, printed in percent."""
    return Metric(key, label, definition, better, PERCENT, 2, 100, **more)


def _percent(key: str, label: str, definition: str, better: str | None = "higher", **more) -> Metric:
    """Recorded in percent, as Detectron2 and mmsegmentation do."""
    return Metric(key, label, definition, better, PERCENT, 2, **more)


def _squared(key: str, label: str, definition: str, **more) -> Metric:
    """A squared distance of confidence and success, printed as DDN does."""
    return Metric(key, label, definition, "lower", HUNDREDTHS, factor=100, **more)


def _per_size(names: tuple[str, ...], kind: str) -> tuple[Metric, ...]:
    sizes = ("small", "medium", "large")
    return tuple(_percent(name, name, f"{kind} of {size} boxes alone") for name, size in zip(names, sizes, strict=True))


# in the order of the columns of a table
SECTIONS: dict[str, tuple[Metric, ...]] = {
    "classification": (
        Metric("passes", "Passes", "forward passes for one image", digits=0, brief=TASKS),
        _share("train_accuracy", "Training acc.", "share of training images that one pass gets right", None),
        _share("val_accuracy", "Validation acc.", "share of validation images that one pass gets right", "higher"),
        _share(
            "accuracy",
            "Test acc.",
            "share of test images with the right class first",
            "higher",
            brief=(CLASSIFICATION,),
        ),
        _share("risk", "Risk", "share of errors", "lower"),
        _share("recall", "Recall", "share of the class's images that are right", "higher"),
    ),
    "precision": (
        _percent(
            "AP",
            "AP",
            "average precision, mean over IoU thresholds 0.50, 0.55, ... 0.95 and categories",
            brief=(DETECTION,),
        ),
        _percent("AP50", "AP50", "average precision at an IoU threshold of 0.50"),
        _percent("AP75", "AP75", "average precision at an IoU threshold of 0.75"),
        *_per_size(("APs", "APm", "APl"), "AP"),
        _percent("AR1", "AR1", "AR with one detection an image"),
        _percent("AR10", "AR10", "AR with ten detections an image"),
        _percent(
            "AR100",
            "AR",
            "average recall with 100 detections an image, mean over IoU thresholds and categories",
            brief=(DETECTION,),
        ),
        _percent("AR300", "AR", "average recall with 300 detections an image, where annotations are federated"),
        *_per_size(("ARs", "ARm", "ARl"), "AR"),
        *(
            _percent(f"AP{kind[0]}", f"AP{kind[0]}", f"AP of {kind} categories alone, where annotations are federated")
            for kind in ("rare", "common", "frequent")
        ),
    ),
    "segmentation": (
        _percent(
            "mIoU",
            "mIoU",
            "intersection over union of prediction and truth, mean over classes",
            brief=(SEGMENTATION,),
        ),
        _percent("IoU", "IoU", "intersection over union of prediction and truth"),
        _percent("mAcc", "mAcc", "share of a class's pixels that are right, mean over classes"),
        _percent("Acc", "Acc.", "share of the class's pixels that are right"),
        _percent("aAcc", "Pixel acc.", "share of pixels that are right"),
        Metric("mUnc", "mUnc", "predicted uncertainty, mean over classes (DUDES table 2)", brief=(SEGMENTATION,)),
        Metric("mUnc_teacher", "mUnc, teacher", "the same of the teacher"),
        Metric("mUnc_difference", "mUnc, difference", "the student's mUnc minus the teacher's", signed=True),
        Metric(
            "rank_correlation",
            "Rank corr.",
            "rank correlation of the student's uncertainties with the teacher's, over pixels",
            "higher",
            formula="Spearman's, at 385 levels; those of a level are tied",
            signed=True,
        ),
        Metric("uncertainty", "Uncertainty", "mean predicted uncertainty of the class's pixels"),
        Metric(
            "ause",
            "AUSE",
            "area between the sparsification curve and its oracle",
            "lower",
            brief=(SEGMENTATION,),
            signed=True,
        ),
    ),
    "calibration": (
        Metric(
            "ece",
            "ECE",
            "expected calibration error: mean distance of confidence and success, over bins",
            "lower",
            formula="sum over bins of n/N · |freq - conf|",
            brief=(CLASSIFICATION, SEGMENTATION),
        ),
        _squared(
            "msce",
            "MSCE",
            "mean squared calibration error, over bins (DDN eq. 15)",
            formula="sum over bins of n/N · (freq - conf)²",
            brief=(CLASSIFICATION, DETECTION),
        ),
        Metric(
            "mce",
            "MCE",
            "maximum calibration error: the distance of the worst bin, however few it holds",
            "lower",
            formula="max over bins of |freq - conf|",
        ),
        _squared(
            "mce_squared",
            "MCE² (DDN)",
            "maximum calibration error as the DDN paper squares it",
            formula="max over bins of (freq - conf)²",
        ),
        Metric(
            "adaptive_ece",
            "Adaptive ECE",
            "ECE over groups of equally many samples, not over equally wide bins (Nguyen and O'Connor 2015)",
            "lower",
            formula="mean over groups of |freq - conf|",
            brief=(CLASSIFICATION, SEGMENTATION),
        ),
        Metric(
            "class_wise_ece",
            "Class-wise ECE",
            "ECE of each class's probability, mean over classes",
            "lower",
            formula="mean over classes c of the ECE of p(c) against [the label is c]",
        ),
        Metric(
            "class_wise_adaptive_ece",
            "ACE",
            "adaptive ECE of each class's probability, mean over classes (Nixon et al. 2019)",
            "lower",
            formula="mean over classes c and groups of equally many samples of |freq - conf| of p(c)",
        ),
    ),
    "detections": (
        Metric(
            "n",
            "n",
            "detections that count: those whose scores, before recalibration, reach the threshold",
            digits=0,
            brief=(DETECTION,),
        ),
        Metric(
            "classes",
            "Classes",
            "categories in the means of LaECE and LaACE; that of LRP has those without detections, too",
            digits=0,
            brief=(DETECTION,),
        ),
        Metric(
            "d_ece",
            "D-ECE",
            "ECE of a detection's score against being a hit",
            "lower",
            formula="the ECE of scores, under its name in detection",
            brief=(DETECTION,),
        ),
        Metric(
            "d_ece_box",
            "D-ECE box",
            "the same in bins of score, place and size of the box",
            "lower",
            formula="5 bins of each of score, centre x, centre y, width, height",
        ),
        Metric(
            "laece",
            "LaECE",
            "localisation-aware ECE: score against mean IoU, mean over categories",
            "lower",
            formula="sum over 25 bins of n/N · |sum of IoU of hits / n - conf|",
            brief=(DETECTION,),
        ),
        Metric(
            "laace",
            "LaACE",
            "localisation-aware ECE without bins, mean over categories",
            "lower",
            formula="mean of |score - IoU|; a false positive has IoU 0",
        ),
        Metric(
            "oce",
            "OCE",
            "object-level calibration error: what detections of any category tell of each ground-truth box",
            "lower",
            formula="mean over boxes of 2 (1 - p)², p their mean score; 2 p² for another category, 1 for none",
        ),
        Metric("laece0", "LaECE any overlap", "LaECE where any overlap is a hit", "lower", formula="t = 0"),
        Metric("laace0", "LaACE any overlap", "LaACE where any overlap is a hit", "lower", formula="t = 0"),
        Metric(
            "lrp",
            "LRP",
            "localisation-recall-precision error: accuracy, not calibration",
            "lower",
            formula="(sum over hits of (1 - IoU)/(1 - t) + false positives + misses) / (hits + both of these)",
        ),
    ),
    "boxes": (
        Metric(
            "box_nll",
            "Box NLL",
            "negative log-likelihood of the errors of sides, Gaussians of the predicted deviations, in pixels",
            "lower",
            formula="mean of log std + error²/(2 std²) + log(2 pi)/2",
            signed=True,
        ),
        Metric(
            "box_crps",
            "Box CRPS",
            "energy score of the same Gaussians; that of a deviation of 0 is the mean absolute error",
            "lower",
            "px",
            formula="mean of E|X - y| - E|X - X'|/2",
        ),
        *(
            _share(
                f"coverage{level}",
                f"Coverage {level}",
                f"sides within the intervals of {level} %: {level} is right",
                None,
            )
            for level in (50, 90, 95)
        ),
        _share(
            "coverage90_conformal",
            "Coverage 90, conformal",
            "the same with a factor for deviations that is fitted to held-out images: 90 is right",
            None,
        ),
        Metric(
            "box_ence",
            "Box ENCE",
            "expected normalised calibration error of the deviations",
            "lower",
            formula="mean over ten bins of equally many sides of |RMS error - RMS std| / RMS std",
        ),
        Metric(
            "box_rank",
            "Box rank corr.",
            "rank correlation of a box's deviation, relative to its size, with 1 - IoU",
            "higher",
            formula="Spearman's, over true positives",
            signed=True,
        ),
    ),
    "scores": (
        Metric(
            "nll_true",
            "NLL true",
            "negative log-likelihood of the true class",
            "lower",
            formula="mean of -log p(label)",
            brief=(CLASSIFICATION, SEGMENTATION),
        ),
        Metric(
            "nll_pred",
            "NLL pred.",
            "negative log-likelihood of the predicted class: knows no truth (DDN eq. 16)",
            formula="mean of -log p(predicted class), or of -log score",
        ),
        Metric(
            "nll",
            "NLL",
            "negative log-likelihood of what came true",
            "lower",
            formula="mean of -log score over hits, of -log(1 - score) over the others, at most 24 log 2 each",
            brief=(DETECTION,),
        ),
        Metric(
            "nll_clamped",
            "NLL clamped",
            "detections sure of what is wrong: they cost NLL 24 log 2 each, the most it takes",
            "lower",
            digits=0,
        ),
        Metric(
            "entropy",
            "Entropy",
            "mean entropy of the prediction, in nats (DDN eq. 17)",
            formula="mean of -sum over classes c of p(c) log p(c)",
        ),
        Metric(
            "brier",
            "Brier",
            "squared distance of probabilities and truth",
            "lower",
            formula="mean of the sum over classes c of (p(c) - [c is the label])²; of (score - [it is a hit])²",
            brief=TASKS,
        ),
        Metric(
            "mupe",
            "MUPE",
            "mean squared distance of the confidences of a predictor and of its teacher",
            "lower",
            formula="mean of (confidence of the teacher - its own)²",
        ),
    ),
    "ranking": (
        Metric(
            "aurc",
            "AURC",
            "area under the risk-coverage curve",
            "lower",
            formula="mean over n of the error rate of the n most certain",
            brief=(CLASSIFICATION,),
        ),
        _share(
            "error_auroc",
            "Error AUROC",
            "chance that an error is less certain than a right answer",
            "higher",
            formula="ties count half",
            brief=(SEGMENTATION,),
        ),
        _share("error_aupr", "Error AUPR", "average precision of finding errors by their uncertainty", "higher"),
        _share("error_fpr95", "Error FPR95", "right answers rejected along with 95% of the errors", "lower"),
        _share(
            "auroc",
            "AUROC",
            "chance that an outlier (or a void pixel) is less certain than the others",
            "higher",
            formula="ties count half",
            brief=(SEGMENTATION,),
        ),
        _share("aupr", "AUPR", "average precision of finding outliers (void pixels) by their uncertainty", "higher"),
        _share("fpr95", "FPR95", "share of the others rejected along with 95% of the outliers (void pixels)", "lower"),
    ),
    "certainty": (
        _share(
            "accurate_if_certain",
            "p(accurate | certain)",
            "share of right pixels among those not more uncertain than the mean",
            "higher",
        ),
        _share(
            "uncertain_if_inaccurate",
            "p(uncertain | inaccurate)",
            "share of the wrong pixels that are more uncertain than the mean",
            "higher",
        ),
        _share(
            "pavpu",
            "PAvPU",
            "share of pixels that are right and certain, or wrong and uncertain",
            "higher",
        ),
    ),
    "cost": (
        Metric("milliseconds", "Time", "of one image", "lower", "ms", digits=1),
        Metric("parameters", "Parameters", "trainable numbers", "lower", digits=0),
    ),
}
METRICS = {metric.key: metric for section in SECTIONS.values() for metric in section}


def metric(key: str) -> Metric:
    """The metric of this name; one such as "msce@50" is that at an IoU threshold of 0.50."""
    name, _, threshold = key.partition("@")
    if name not in METRICS:
        return Metric(key, key, signed=True)
    found = METRICS[name]
    return replace(found, key=key, label=f"{found.label}@{threshold}") if threshold else found


def in_order(keys: Iterable[str]) -> list[Metric]:
    """The metrics of these names in the order of their declaration, then those that are not declared."""
    keys = list(dict.fromkeys(keys))
    return [METRICS[key] for key in METRICS if key in keys] + [metric(key) for key in keys if key not in METRICS]


def brief(task: str, keys: Iterable[str]) -> list[Metric]:
    """Those of them that the short tables of a task have, in order."""
    return [found for found in in_order(keys) if task in found.brief]


@dataclass(frozen=True)
class CurveKind:
    """How a curve is drawn: title, axes, how to read it, and the factor from the recorded y to the drawn one."""

    title: str
    x: str
    y: str
    caption: str
    factor: float = 1.0


CURVES = {
    "risk_coverage": CurveKind(
        "Risk and coverage",
        "coverage",
        f"risk (error rate), {PERCENT}",
        "Errors among the most confident share of the samples: the lower, the better mistakes are known in advance.",
        100,
    ),
    "sparsification": CurveKind(
        "Sparsification",
        "removed share of pixels",
        f"mIoU of the rest, {PERCENT}",
        "mIoU without the most uncertain share of the pixels: the faster it rises, the better mistakes are known.",
        100,
    ),
}


def curve_kind(name: str) -> CurveKind:
    """The kind of a curve of this name."""
    return CURVES.get(name) or CurveKind(name, "x", "y", "")
