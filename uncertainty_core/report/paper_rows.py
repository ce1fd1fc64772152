"""The numbers that the papers print, in our names and units, each with its table.

DDN    Gurau, Bewley, Posner: Dropout Distillation for Efficiently Estimating Model Confidence, 2018
DD     Rota Bulò, Porzi, Kontschieder: Dropout Distillation, 2016
KD     Amara, Clark: Uncertainty transfer with knowledge distillation, 2020
DUDES  Landgraf, Wursthorn, Hillemann, Ulrich: DUDES, 2023
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from ..errors import UserError


@dataclass(frozen=True)
class PaperRow:
    """What a paper prints of a predictor: where, and its values in the units of our own."""

    source: str
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", numbers(self.metrics))
        object.__setattr__(self, "per_class", {name: numbers(column) for name, column in self.per_class.items()})


def numbers(values: Mapping[str, float | str]) -> dict[str, float]:
    """The same values as floats; what JSON lacks (NaN, infinity) is a word there."""
    return {name: float(value) for name, value in values.items()}


# Gurau 2018, table I; the paper prints MSCE and its MCE times 100
_DDN_CIFAR10_COLUMNS = ("msce", "mce_squared", "risk", "nll_pred", "entropy", "passes")
_DDN_CIFAR10 = {
    "baseline": (0.009676, 0.050694, 0.1331, 0.0634, 0.1331, 1),
    "MC-10": (0.000334, 0.008898, 0.1209, 0.1293, 0.2661, 10),
    "MC-100": (0.000330, 0.005250, 0.1169, 0.1318, 0.2790, 100),
    "DDN": (0.000927, 0.010790, 0.1002, 0.1267, 0.4445, 1),
}

# Gurau 2018, table II; likewise, and AP and AR as fractions
_DDN_COCO_COLUMNS = ("AP", "AR100", "msce", "mce_squared", "nll_pred")
_DDN_COCO = {
    "R50/baseline": (29.2, 41.3, 0.01638, 0.02064, 1.109),
    "R50/DDN": (29.2, 40.8, 0.00757, 0.01299, 1.488),
    "R101/baseline": (32.0, 44.2, 0.01816, 0.02285, 1.109),
    "R101/DDN": (31.8, 43.3, 0.00706, 0.01347, 1.525),
}

# Rota Bulò 2016, table 1, errors; left half: three predictors, right half: distilled on training and on test images
_DD_NAMES = ("baseline", "MC-100", "distillation", "distillation, train", "distillation, test")
_DD = {
    "MNIST LeNet": (0.0067, 0.0067, 0.0067),
    "MNIST LeNetAll": (0.0051, 0.0049, 0.0049),
    "CIFAR10 Quick": (0.1815, 0.1678, 0.1720, 0.1715, 0.1723),
    "CIFAR10 NiN": (0.1116, 0.1104, 0.1114, 0.1120, 0.1114),
    "CIFAR10 AllConv": (0.1120, 0.1060, 0.1080, 0.1059, 0.1064),
    "CIFAR100 AllConv": (0.3246, 0.3099, 0.3207, 0.3188, 0.3175),
    "CIFAR100 NiN": (0.3528, 0.3505, 0.3520, 0.3521, 0.3518),
}

# Amara 2020, table 1
_KD = {
    "baseline": {"train_accuracy": 0.9987, "val_accuracy": 0.9908, "accuracy": 0.9921, "ece": 0.0027},
    "KD-SN1": {"train_accuracy": 0.9975, "val_accuracy": 0.9893, "accuracy": 0.9914, "ece": 0.0064, "mupe": 0.0037},
    "KD-SN2": {"train_accuracy": 0.9952, "val_accuracy": 0.9880, "accuracy": 0.9904, "ece": 0.0019, "mupe": 0.0019},
    "SN2": {"train_accuracy": 0.9999, "val_accuracy": 0.9944, "accuracy": 0.9951, "ece": 0.0036},
    "KD-SN3": {"train_accuracy": 0.9875, "val_accuracy": 0.9808, "accuracy": 0.9836, "ece": 0.0029, "mupe": 0.0016},
}

# Landgraf 2023: class-wise values of tables 1 (IoU in percent) and 2 (uncertainty), named as mmsegmentation does
_CITYSCAPES = (  # in the order of the columns
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_IOU = {
    "teacher": "97.8 82.2 90.7 50.4 54.5 54.9 57.8 69.3 91.5 62.7 94.3 75.4 53.5 93.2 69.6 75.9 64.0 47.6 69.5",
    "student": "98.0 83.5 91.4 46.7 55.7 59.1 63.3 73.3 91.8 63.1 94.2 79.0 57.9 93.9 74.7 83.8 69.4 50.1 73.6",
    "Holder, teacher": "96.1 79.4 91.4 43.2 56.3 58.4 62.0 73.0 91.7 59.6 93.7 78.2 55.3 93.5 66.8 79.3 67.7 53.4 74.3",
    "Holder, student": "96.4 77.2 90.0 42.6 54.7 47.6 51.1 65.2 90.4 56.4 91.9 73.9 49.8 92.1 61.7 72.3 62.5 49.3 68.9",
}
_UNCERTAINTY = {
    "teacher": ".024 .064 .038 .150 .165 .100 .142 .102 .025 .101 .031 .109 .120 .043 .175 .163 .195 .158 .108",
    "student": ".018 .065 .035 .144 .160 .128 .112 .097 .027 .126 .025 .117 .105 .038 .200 .144 .171 .190 .150",
    "Holder, teacher": ".029 .097 .055 .210 .147 .100 .128 .108 .028 .129 .030 .068 .125 .030 .176 .155 .257 .165 .082",
    "Holder, student": ".032 .086 .077 .155 .141 .133 .135 .111 .055 .127 .046 .097 .127 .046 .108 .100 .127 .135 .130",
}
# means of tables 1 and 2; time and size of table 3
_DUDES = {
    "teacher": {"mIoU": 71.3, "mUnc": 0.106, "milliseconds": 217.1, "parameters": 123_339_230},
    "student": {"mIoU": 73.8, "mUnc": 0.108, "milliseconds": 18.5, "parameters": 12_334_180},
    "Holder, teacher": {"mIoU": 72.3, "mUnc": 0.111},
    "Holder, student": {"mIoU": 68.1, "mUnc": 0.104},
}
# table 4, and the baseline's time and size of table 3
_DUDES_PRETRAINING = {
    "baseline": {"mIoU": 73.7, "milliseconds": 18.3, "parameters": 12_333_923},
    "baseline, random": {"mIoU": 68.5},
    "student, random": {"mIoU": 64.6, "mUnc": 0.097},
    "student, random, 800 epochs": {"mIoU": 73.9, "mUnc": 0.105},
}


def _by_class(values: str) -> dict[str, float]:
    return dict(zip(_CITYSCAPES, map(float, values.split()), strict=True))


PAPER_ROWS = {
    **{
        f"DDN/CIFAR10/{name}": PaperRow(
            "Gurau 2018, table I (DenseNet-40, CIFAR-10)", dict(zip(_DDN_CIFAR10_COLUMNS, row, strict=True))
        )
        for name, row in _DDN_CIFAR10.items()
    },
    **{
        f"DDN/COCO/{name}": PaperRow(
            "Gurau 2018, table II (Faster R-CNN, COCO)", dict(zip(_DDN_COCO_COLUMNS, row, strict=True))
        )
        for name, row in _DDN_COCO.items()
    },
    **{
        f"DD/{network}/{name}": PaperRow(f"Rota Bulò 2016, table 1 ({network})", {"risk": risk})
        for network, risks in _DD.items()
        for name, risk in zip(_DD_NAMES, risks, strict=False)  # MNIST has three
    },
    **{f"KD/MNIST/{name}": PaperRow("Amara 2020, table 1 (MNIST)", metrics) for name, metrics in _KD.items()},
    **{
        f"DUDES/Cityscapes/{name}": PaperRow(
            "Landgraf 2023, tables 1 to 3 (DeepLabv3+, Cityscapes)",
            metrics,
            {"IoU": _by_class(_IOU[name]), "uncertainty": _by_class(_UNCERTAINTY[name])},
        )
        for name, metrics in _DUDES.items()
    },
    **{
        f"DUDES/Cityscapes/{name}": PaperRow("Landgraf 2023, tables 3 and 4 (DeepLabv3+, Cityscapes)", metrics)
        for name, metrics in _DUDES_PRETRAINING.items()
    },
}


def paper_row(key: str) -> PaperRow:
    """The row "<method>/<data>/<predictor>" of a paper, for example "DDN/CIFAR10/MC-100"."""
    if key not in PAPER_ROWS:
        raise UserError(f"no paper has a row {key!r}; near it are {_near(key, PAPER_ROWS)}")
    return PAPER_ROWS[key]


def paper_table(table: str) -> dict[str, PaperRow]:
    """All rows "<method>/<data>" of a paper by predictor, for example "DDN/CIFAR10"."""
    rows = {key.removeprefix(f"{table}/"): row for key, row in PAPER_ROWS.items() if key.startswith(f"{table}/")}
    if not rows:
        tables = {key.rpartition("/")[0] for key in PAPER_ROWS}
        raise UserError(f"no paper has a table {table!r}; near it are {_near(table, sorted(tables))}")
    return rows


def _near(word: str, known: Iterable[str]) -> str:
    return ", ".join(get_close_matches(word, list(known), n=3, cutoff=0))
