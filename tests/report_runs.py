"""Made-up runs of all three tasks, on disk, for the page that compares them."""

import math

from PIL import Image

from uncertainty_core.report.paper_rows import paper_row
from uncertainty_core.report.run_record import Curve, Data, Picture, Provenance, Reliability, RunRecord

VERSIONS = {"python": "3.11.7", "torch": "2.11.0", "numpy": "2.4.6", "distilled-uncertainty": "0.1.0"}
DIGITS = Data("digits", "ab12" * 16, 800)
SCENES = Data("scenes_test", "cd34" * 16, 200)
STREETS = Data("streets <val>", "ef56" * 16, 50)
REMOVED = [0.0, 0.2, 0.4, 0.6, 0.8]


def record(name="baseline", task="classification", data=DIGITS, seed=0, passes=1, metrics=None, **others):
    """A run of one predictor, by default without bins, curves or pictures."""
    command = f"python -m classification evaluate --config '{data.name}.yaml' data.limit=3"
    provenance = Provenance(command, seed, VERSIONS, data, 1.25)
    return RunRecord(name, task, passes, metrics or {"accuracy": 0.5}, provenance, **others)


def bins(bend):
    """Ten bins, the first of them empty; success is confidence to the power of `bend`."""
    confidence = [math.nan, *(0.05 + 0.1 * k for k in range(1, 10))]
    return Reliability(
        edges=[k / 10 for k in range(11)],
        count=[0, 2, 30, 50, 40, 60, 80, 120, 160, 258],
        mean_confidence=confidence,
        success_frequency=[p**bend for p in confidence],
    )


def risk(worst):
    """A risk-coverage curve that ends at the error rate `worst`."""
    coverage = [k / 50 for k in range(1, 51)]
    return Curve(coverage, [worst * c**2 for c in coverage], [max(0.0, 1 - (1 - worst) / c) for c in coverage])


def write_runs(folder):
    """Twelve runs: seven predictors of digits, one of them with two seeds, two of scenes, two of streets."""
    accuracy = {"baseline": 0.89, "MC-10": 0.881, "MC-100": 0.888, "ensemble of 2": 0.9}
    passes = {"MC-10": 10, "MC-100": 100, "ensemble of 2": 2}
    accuracy |= {"DDN": 0.8896, "KD <half>": 0.8858, "distillation": 0.8934}
    for k, (name, right) in enumerate(accuracy.items()):
        for seed in range(1 + (name == "DDN")):
            values = {"accuracy": right - 0.01 * seed, "ece": 0.02 * (k + 1) % 0.07, "msce": 0.001 * (7 - k)}
            if name != "baseline":
                values["mupe"] = 0.003 * k
            record(
                name,
                passes=passes.get(name, 1),
                seed=seed,
                metrics=values,
                reliability=bins(1.3 - 0.1 * k),
                curves={"risk_coverage": risk(1 - right)},
                per_class={"recall": {str(digit): right - 0.02 * ((digit * 3 + k) % 7) for digit in range(10)}},
                paper_row=paper_row(f"DDN/CIFAR10/{name}") if name in ("baseline", "MC-10", "MC-100", "DDN") else None,
            ).write(folder / "digits" / name / f"seed-{seed}")
    for name, ap, msce in (("baseline", 25.02, 0.0095), ("DDN", 25.16, 0.0067)):
        values = {"AP": ap, "AR100": 61.1, "msce": msce, "nll": math.inf if name == "DDN" else 0.37, "odd one": 3.0}
        record(name, "detection", SCENES, metrics=values, reliability=bins(1.2)).write(folder / "scenes" / name)
    for name, iou in (("teacher", 71.3), ("student", 73.8)):
        place = folder / "streets" / name
        place.mkdir(parents=True)
        Image.new("RGB", (96, 48), (0, 114, 178) if name == "teacher" else (213, 94, 0)).save(place / "strip.png")
        record(
            name,
            "segmentation",
            STREETS,
            passes=10 if name == "teacher" else 1,
            metrics={"mIoU": iou, "mUnc": 0.106, "ause": 0.01},
            curves={"sparsification": Curve(REMOVED, [iou / 100 + 0.2 * x for x in REMOVED], [1.0] * len(REMOVED))},
            per_class={"IoU": {"road": 97.0, "pole": iou - 12.0}, "uncertainty": {"road": 0.02, "pole": 0.1}},
            pictures=[Picture("strip.png", "image, truth, prediction & uncertainty")],
            paper_row=paper_row(f"DUDES/Cityscapes/{name}"),
        ).write(place)
