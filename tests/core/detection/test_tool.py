"""tools/evaluate_detections.py as it is run."""

import json
import math
import runpy
import sys
from pathlib import Path

import pytest
from references_detection import CATEGORIES, IMAGES

from uncertainty_core.report.find import find_runs
from uncertainty_core.report.page import build_page, grouped
from uncertainty_core.report.run_record import RunRecord

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "tools" / "evaluate_detections.py"
BOX = {"image_id": 11, "category_id": 3, "bbox": [0, 0, 100, 100]}


@pytest.fixture
def files(tmp_path):
    annotations = [{"id": 1, "area": 10_000, "iscrowd": 0, **BOX}]
    truth = {"images": IMAGES, "categories": CATEGORIES, "annotations": annotations}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps([{"score": 0.75, **BOX}]))
    return [str(tmp_path / "gt.json"), str(tmp_path / "dt.json")]


@pytest.fixture
def main(monkeypatch):
    """Runs the tool with these arguments."""

    def run(arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *arguments])
        runpy.run_path(str(TOOL), run_name="__main__")

    return run


def test_prints_tables_and_writes_files(files, main, tmp_path, capfd):
    options = ["--output", str(tmp_path / "out"), "--iou", "0.4", "0.6", "--bins", "8", "--per-class"]
    main([*files, *options])
    shown = capfd.readouterr()
    assert "matching 1 detections in 3 images" in shown.err
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines()}
    assert rows["ECE"] == ["0.2500", "0.2500"]
    assert rows["LaECE"] == ["0.2500", "0.2500", "0.2500"]
    assert "ninety" in rows
    content = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert content["calibration"][1]["settings"]["num_bins"] == 8
    assert (tmp_path / "out" / "reliability_iou60.png").exists()


def test_writes_the_record_that_a_page_compares(files, main, tmp_path):
    main([*files, "--output", str(tmp_path / "out" / "one"), "--iou", "0.5"])
    main([*files, "--output", str(tmp_path / "out" / "two"), "--iou", "0.5", "--name", "student", "--passes", "3"])
    one, two = find_runs([tmp_path / "out"])
    assert (one.name, one.record.passes, two.name, two.record.passes) == ("dt", 1, "student", 3)
    assert two.record.metrics["d_ece"] == 0.25 and two.record.metrics["AP"] == 100
    assert len(grouped([one, two])) == 1
    page = build_page([one, two], "detectors")
    assert "Detection" not in page and ">student<" in page


@pytest.mark.filterwarnings("ignore:.* is NaN:RuntimeWarning")
def test_no_detections_at_all(files, main, tmp_path, capfd):
    Path(files[1]).write_text("[]")
    main([*files, "--output", str(tmp_path / "out"), "--iou", "0.5", "--per-class"])
    shown = capfd.readouterr()
    assert "warning: there are no detections, so that AP is 0 and calibration undefined" in shown.err
    rows = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines()}
    assert set(rows["ECE"]) == {"undefined"}
    metrics = RunRecord.read(tmp_path / "out").metrics
    assert metrics["AP"] == metrics["n"] == 0 and math.isnan(metrics["d_ece"])


def test_warnings_are_shown(files, main, capfd):
    found = [{"score": 0.75, **BOX}, {"score": 0.75, **BOX, "image_id": 999}]
    Path(files[1]).write_text(json.dumps(found))
    main(files)
    assert "warning: " in (shown := capfd.readouterr().err) and "1 of 2 are of images that the ground" in shown


def test_protocol(files, main, capfd):
    found = [{"score": 0.75, **BOX}, {"score": 1.0, **BOX, "category_id": 90}]
    Path(files[1]).write_text(json.dumps(found))
    # a category without boxes is off by 1, and left out by fiveai
    for protocol, error in (("coco", (0.25 + 1) / 2), ("fiveai", 0.25)):
        main([*files, "--protocol", protocol])
        rows = {line.split()[0]: line.split()[1:] for line in capfd.readouterr().out.splitlines()}
        assert [float(cell) for cell in rows["LaECE"]] == [error] * 4


def test_score_threshold(files, main, capfd):
    with pytest.warns(RuntimeWarning, match="NaN"):
        main([*files, "--score-threshold", "0.8"])
    assert "ninety" not in capfd.readouterr().out


def test_needs_no_detectron2(files, main, monkeypatch, capfd):
    for name in ("detectron2", "fvcore", "pycocotools", "mmseg", "mmengine", "ddn_detectron2"):
        monkeypatch.setitem(sys.modules, name, None)  # makes its import fail
    for name in [name for name in sys.modules if name.startswith("uncertainty_core")]:
        monkeypatch.delitem(sys.modules, name)
    main(files)
    assert "AP50" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda files: files[::-1], "are ground truth and detections swapped|is it a results file"),
        (lambda files: [files[0], "missing.json"], "missing.json cannot be read"),
        (lambda files: [*files, "--bins", "0"], "num_bins must be an integer >= 1"),
        (lambda files: [*files, "--iou", "1"], "iou_thresholds must lie in"),
        (lambda files: [*files, "--output", files[0]], "File exists"),
        (lambda files: [*files, "--federated"], "the annotations are not federated"),
    ],
)
def test_bad_input_ends_in_one_sentence(files, main, change, sentence, capfd):
    with pytest.raises(SystemExit) as stop:
        main(change(files))
    assert stop.value.code == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert any(part in error for part in sentence.split("|"))
