"""How each metric and curve is called, printed and read; what is not listed is printed plain, by its own name."""

import math
from dataclasses import dataclass, replace
from typing import Literal

PERCENT = "%"
HUNDREDTHS = "\N{MULTIPLICATION SIGN} 100"  # as DDN's tables print MSCE and MCE


@dataclass(frozen=True)
class Metric:
    """A metric as a table prints it.

    Args:
        key: its name in records.
        label: its name for people.
        definition: one line; "" for what has none.
        better: None for a metric that is neither good nor bad.
        unit: of what is printed.
        digits: after the point.
        factor: from the recorded value to the printed one.
        group: a heading over several columns.
    """

    key: str
    label: str
    definition: str = ""
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    digits: int = 4
    factor: float = 1.0
    group: str = ""

    def text(self, value: float) -> str:
        """The recorded value as it is printed."""
        if not math.isfinite(value):
            return "undefined" if math.isnan(value) else "∞" if value > 0 else "-∞"
        return f"{self.factor * value:,.{self.digits}f}"


def _share(key: str, label: str, definition: str, better: str | None, group: str = "") -> Metric:
    """Recorded as a fraction, printed in percent."""
    return Metric(key, label, definition, better, PERCENT, 2, 100, group)


def _percent(key: str, label: str, definition: str, better: str | None = "higher", digits: int = 2) -> Metric:
    """Recorded in percent, as Detectron2 and mmsegmentation do."""
    return Metric(key, label, definition, better, PERCENT, digits)


def _per_size(names: tuple[str, ...], kind: str) -> tuple[Metric, ...]:
    sizes = ("small", "medium", "large")
    return tuple(_percent(name, name, f"{kind} of {size} boxes alone") for name, size in zip(names, sizes, strict=True))


METRICS = {
    metric.key: metric
    for metric in (
        Metric("passes", "Passes", "forward passes for one image", digits=0),
        # classification
        _share("train_accuracy", "Training acc.", "share of training images that one pass gets right", None),
        _share("val_accuracy", "Validation acc.", "share of validation images that one pass gets right", "higher"),
        _share("accuracy", "Test acc.", "share of test images with the right class first", "higher"),
        _share("risk", "Risk", "share of errors", "lower"),
        _share("recall", "Recall", "share of the class's images that are right", "higher"),
        # detection
        _percent("AP", "AP", "average precision, mean over IoU thresholds 0.50, 0.55, ... 0.95 and categories"),
        _percent("AP50", "AP50", "average precision at an IoU threshold of 0.50"),
        _percent("AP75", "AP75", "average precision at an IoU threshold of 0.75"),
        *_per_size(("APs", "APm", "APl"), "AP"),
        _percent("AR1", "AR1", "AR with one detection an image"),
        _percent("AR10", "AR10", "AR with ten detections an image"),
        _percent("AR100", "AR", "average recall with 100 detections an image, mean over IoU thresholds and categories"),
        *_per_size(("ARs", "ARm", "ARl"), "AR"),
        # segmentation
        _percent("mIoU", "mIoU", "intersection over union of prediction and truth, mean over classes"),
        _percent("IoU", "IoU", "intersection over union of prediction and truth"),
        _percent("mAcc", "mAcc", "share of a class's pixels that are right, mean over classes"),
        _percent("Acc", "Acc.", "share of the class's pixels that are right"),
        _percent("aAcc", "Pixel acc.", "share of pixels that are right"),
        Metric("mUnc", "mUnc", "predicted uncertainty, mean over classes", None),
        Metric("mUnc_teacher", "mUnc, teacher", "the same of the teacher", None),
        Metric("mUnc_difference", "mUnc, difference", "the student's mUnc minus the teacher's", None),
        Metric("uncertainty", "Uncertainty", "mean predicted uncertainty of the class's pixels", None),
        Metric("ause", "AUSE", "area between the sparsification curve and its oracle", "lower"),
        # calibration
        Metric("ece", "ECE", "expected calibration error: mean distance of confidence and success, over bins", "lower"),
        Metric("msce", "MSCE", "mean squared calibration error, over bins", "lower", HUNDREDTHS, digits=4, factor=100),
        Metric("mce", "MCE", "maximum squared calibration error of a bin", "lower", HUNDREDTHS, digits=4, factor=100),
        Metric("mce_abs", "MCE abs.", "maximum calibration error of a bin, not squared", "lower"),
        Metric("class_wise_ece", "Class-wise ECE", "ECE of each class's probability, mean over classes", "lower"),
        Metric("d_ece", "D-ECE", "ECE of a detection's score against being a true positive", "lower"),
        Metric("d_ece_box", "D-ECE box", "the same in bins of score, place and size of the box", "lower"),
        Metric("laece", "LaECE", "localisation-aware ECE: score against mean IoU, mean over categories", "lower"),
        Metric("laace", "LaACE", "localisation-aware ECE without bins", "lower"),
        Metric("laece0", "LaECE any overlap", "LaECE where any overlap is a hit", "lower"),
        Metric("laace0", "LaACE any overlap", "LaACE where any overlap is a hit", "lower"),
        Metric("lrp", "LRP", "localisation-recall-precision error", "lower"),
        Metric("nll_true", "NLL true", "negative log-likelihood of the true class", "lower"),
        Metric("nll_pred", "NLL pred.", "negative log-likelihood of the predicted class", None),
        Metric("nll", "NLL", "negative log-likelihood of what came true", "lower"),
        Metric("entropy", "Entropy", "mean entropy of the prediction", None),
        Metric("brier", "Brier", "squared distance of probabilities and truth", "lower"),
        # knowing its errors
        Metric("aurc", "AURC", "area under the risk-coverage curve", "lower"),
        _share("error_auroc", "Error AUROC", "chance that an error is less certain than a right answer", "higher"),
        _share("error_aupr", "Error AUPR", "average precision of finding errors by their uncertainty", "higher"),
        _share("error_fpr95", "Error FPR95", "right answers rejected along with 95% of the errors", "lower"),
        _share("auroc", "AUROC", "chance that an outlier (or a void pixel) is less certain than the others", "higher"),
        _share("aupr", "AUPR", "average precision of finding outliers (void pixels) by their uncertainty", "higher"),
        _share("fpr95", "FPR95", "share of the others rejected along with 95% of the outliers (void pixels)", "lower"),
        Metric("mupe", "MUPE", "mean squared distance of the confidences of a predictor and of its teacher", "lower"),
        # cost
        Metric("milliseconds", "Time", "of one image", "lower", "ms", digits=1),
        Metric("parameters", "Parameters", "trainable numbers", "lower", digits=0),
    )
}


def metric(key: str) -> Metric:
    """The metric of this name; one such as "msce@50" is that at an IoU threshold of 0.50."""
    name, _, threshold = key.partition("@")
    if name not in METRICS:
        return Metric(key, key)
    found = METRICS[name]
    return replace(found, key=key, label=f"{found.label}@{threshold}") if threshold else found


@dataclass(frozen=True)
class CurveKind:
    """How a curve is drawn: its title, its axes, what an oracle is, and how to read it."""

    title: str
    x: str
    y: str
    caption: str


CURVES = {
    "risk_coverage": CurveKind(
        "Risk and coverage",
        "coverage",
        "risk (error rate)",
        "Errors among the most confident share of the samples: the lower, the better mistakes are known in advance.",
    ),
    "sparsification": CurveKind(
        "Sparsification",
        "removed share of pixels",
        "mIoU of the rest",
        "mIoU without the most uncertain share of the pixels: the faster it rises, the better mistakes are known.",
    ),
}


def curve_kind(name: str) -> CurveKind:
    """The kind of a curve of this name."""
    return CURVES.get(name) or CurveKind(name, "x", "y", "")
