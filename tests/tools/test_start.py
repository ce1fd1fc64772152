"""Help, and every error that needs no framework, before torch is imported."""

import json
from pathlib import Path

import pytest
from light_tools import ROOT, endings

DETECTORS = ("train_net", "distill_detector", "generate_targets", "export_student")
OTHERS = ("evaluate_detections", "fit_calibrator", "make_scenes", "visualize_detections")
DDN = ("--config-file", "ddn_R50.yaml")
DIGITS = ROOT / "configs" / "classification" / "quick" / "digits.yaml"
FLAGS = {  # of both tasks, where there are two
    "train_net": ("--config-file", "--ddn", "--train-json", "--val-images", "--num-gpus", "--threads"),
    "generate_targets": ("--config-file", "--ddn", "--train-json", "--class-wise"),
    "train_ensemble": ("--config-file", "--amp"),
    "fit_calibrator": ("--class-wise", "--uncertainty"),
}
VISUALIZE = ("--gt", "none", "--images", ".", "--baseline", "b", "--student", "s", "--output", "out")
TRUTH = {
    "images": [{"id": 1, "file_name": "a.png", "width": 9, "height": 9}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [],
}
CLASSIFICATION = (
    ("", "required: --config"),
    ("--config none.yaml", "neither a file"),
    ("--config bad.yaml", "is not YAML"),
    ("--config ddn_R50.yaml", "neither a file"),
    (f"--config {ROOT}/configs/ddn/ddn_R50.yaml", "is a config of Detectron2"),
    ("--config quick/digits.yaml data.nam=x", "there is no key data.nam; did you mean name?"),
    ("--config quick/digits.yaml students.DDN.method=KDD", "known are standard, ddn"),
    ("--config quick/digits.yaml --threads 0", "--threads must be at least 1"),
)


def tool(name, *words):
    return [ROOT / "tools" / f"{name}.py", *words]


def detector(name, *words):
    """A tool of detectors, with the flags that it asks for."""
    return tool(name, *(("--output", "out") if name == "export_student" else ()), *words)


REFUSED = [
    *((detector(name), "required: --config-file") for name in DETECTORS),
    *((detector(name, "--config-file", "none.yaml"), "neither a file") for name in DETECTORS),
    *((detector(name, "--config-file", "bad.yaml"), "is not YAML") for name in DETECTORS),
    *((detector(name, "--config-file", DIGITS), "is an experiment with classifiers") for name in DETECTORS),
    (detector("train_net", "--config-file", "code.yaml"), "wants to run code"),
    (detector("train_net", "--config-file", "code.yaml"), "; --trust-config lets it"),
    (detector("train_net", *DDN, "MODEL.WEIGHTS"), "pairs"),
    *(
        (detector(name, *DDN, "MODEL.WEIGHTS", "no.pth"), "MODEL.WEIGHTS: there is no file no.pth")
        for name in DETECTORS
    ),
    (
        detector("train_net", "--config-file", "ddn_R50.yaml", "--val-json", "bad.json", "--val-images", "."),
        "is not JSON",
    ),
    (detector("distill_detector", *DDN, "--also", "none.yaml"), "neither a file"),
    (detector("distill_detector", *DDN, "--pictures", "0"), "--pictures must be at least 1"),
    (
        detector("export_student", "--config-file", "ddn_R50.yaml", "--torchscript", "none.jpg"),
        "there is no file none.jpg",
    ),
    (detector("train_net", *DDN, "--threads", "0"), "--threads must be at least 1"),
    (tool("export", *DDN, "--output", "out", "--image", "none.jpg"), "--image: there is no file none.jpg"),
    (tool("export", "--task", "segmentation", "none.py", "none.pth", "--output", "out"), "neither a file"),
    (tool("export", "--task", "classification", "--config", "none.yaml", "--output", "out"), "neither a file"),
    (tool("generate_targets", "--task", "panoptic"), "invalid choice"),
    (tool("generate_targets", "--task", "segmentation", "none.py", "--store", "s"), "neither a file"),
    *((tool(name, "none.json", "gt.json"), "none.json") for name in OTHERS[:2]),
    *((tool(name, "bad.json", "gt.json"), "bad.json") for name in OTHERS[:2]),
    *((tool(name, "gt.json", "gt.json"), "gt.json must hold a list of detections") for name in OTHERS[:2]),
    (tool("evaluate_detections", "gt.json", "gt.json", "--bins", "0"), "num_bins must be an integer >= 1"),
    (tool("fit_calibrator", "gt.json", "gt.json", "--apply", "dt.json"), "--apply and --output go together"),
    (tool("fit_calibrator", "gt.json", "gt.json", "--method", "spline"), "invalid choice"),
    (tool("fit_calibrator", "--task", "segmentation", "none.py"), "neither a file"),
    (tool("fit_temperature", "gt.json", "dt.json"), "fit-calibrator --method temperature gt.json dt.json"),
    (detector("distill_detector", *DDN, "--calibrators", "spline-iou"), "there is no calibrator of scores 'spline'"),
    (tool("make_scenes", "--output", "gt.json", "--num-images", "1"), "File exists"),
    (tool("make_scenes", "--output", "out", "--num-images", "0"), "--num-images must be at least 1"),
    (
        tool(
            "visualize_detections",
            *["--gt", "none", "--images", ".", "--baseline", "b", "--student", "s", "--output", "o"],
        ),
        "none",
    ),
    *((["-m", "classification", "run", *words.split()], sentence) for words, sentence in CLASSIFICATION),
    (["-m", "uncertainty_core.report", "."], "there is no run.json"),
    (["-m", "uncertainty_core.report", ".", "--colour"], "unrecognized arguments"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    (folder / "gt.json").write_text(json.dumps(TRUTH))
    (folder / "bad.json").write_text('{"images": [')
    (folder / "bad.yaml").write_text("MODEL: [1, 2")
    (folder / "code.yaml").write_text("MODEL: {WEIGHTS: !!python/object/apply:os.system ['touch ran']}")
    return folder


def test_help_imports_nothing_heavy(folder):
    helps = [tool(name, "--help") for name in (*DETECTORS, "train_ensemble", *OTHERS)]
    helps += [["-m", package, "--help"] for package in ("classification", "uncertainty_core.report")]
    for words, end in zip(helps, endings(helps, folder), strict=True):
        assert (end.code, end.heavy, end.err) == (0, [], ""), words
        assert "--verbose" in end.out
        assert all(flag in end.out for flag in FLAGS.get(Path(words[0]).stem, ()))


def test_errors_are_one_sentence_before_anything_heavy_is_imported(folder):
    for (words, sentence), end in zip(REFUSED, endings([words for words, _ in REFUSED], folder), strict=True):
        (line,) = (line for line in end.err.splitlines() if "error: " in line)
        assert (end.code, end.heavy, end.out) == (2, [], ""), words
        assert sentence in line, words
    assert not (folder / "ran").exists()
